"""Sign Imburse HMAC tokens and exchange them for access tokens.

The names below are the public contract and cost neither `requests` nor boto3 to import. What talks to the
network stands in modules of its own: `transport`, `exchange`, `identity` (requests) and `secrets` (boto3).
"""

from imburse_auth.access_token import AccessToken
from imburse_auth.api_key import ApiKey
from imburse_auth.credential import CredentialId
from imburse_auth.errors import VendingError
from imburse_auth.hmac_token import HmacToken, sign

__all__ = ["AccessToken", "ApiKey", "CredentialId", "HmacToken", "VendingError", "sign"]
