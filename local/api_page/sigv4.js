// AWS Signature Version 4 with the browser's own cryptography.
// Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

const SERVICE = 'execute-api';
const encoder = new TextEncoder();

/** The headers that sign a request: `{Authorization, "X-Amz-Date"}`. `body` is text, "" for none; `now` a Date. */
export async function signed({ method, url, body, accessKeyId, secretAccessKey, region, now }) {
  const { host, pathname, searchParams } = new URL(url);
  const time = now.toISOString().replace(/[-:]|\.\d{3}/g, '');
  const scope = `${time.slice(0, 8)}/${region}/${SERVICE}/aws4_request`;
  const canonical = [
    method.toUpperCase(),
    pathname.split('/').map(escaped).join('/'),
    [...searchParams].map(([name, value]) => `${escaped(name)}=${escaped(value)}`).sort().join('&'),
    `host:${host}\nx-amz-date:${time}\n`,
    'host;x-amz-date',
    hex(await crypto.subtle.digest('SHA-256', encoder.encode(body))),
  ].join('\n');
  const hash = hex(await crypto.subtle.digest('SHA-256', encoder.encode(canonical)));
  const signature = hex(await mac(await signingKey(secretAccessKey, scope), `AWS4-HMAC-SHA256\n${time}\n${scope}\n${hash}`));
  return {
    'X-Amz-Date': time,
    Authorization: `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope}, SignedHeaders=host;x-amz-date, Signature=${signature}`,
  };
}

async function signingKey(secretAccessKey, scope) {
  let key = encoder.encode(`AWS4${secretAccessKey}`);
  for (const part of scope.split('/')) key = await mac(key, part);
  return key;
}

async function mac(key, message) {
  const imported = await crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  return crypto.subtle.sign('HMAC', imported, encoder.encode(message));
}

// What is escaped in the path already is escaped again: so says the standard, for every service but S3.
function escaped(text) {
  return encodeURIComponent(text).replace(/[!'()*]/g, (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`);
}

function hex(buffer) {
  return [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
