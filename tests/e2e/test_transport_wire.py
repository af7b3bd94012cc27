"""The transport on real sockets: what a fake cannot show of an upstream that is slow, careless or hostile on the wire."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from imburse_auth import transport as transport_module
from imburse_auth.errors import UpstreamProtocol, UpstreamUnavailable
from imburse_auth.retry import Deadline
from imburse_auth.transport import Answer, Transport
from imburse_vending import imburse_call
from imburse_vending.common import CommandError
from tests.cli_run import vended

BODY = b'{"accessToken": "abc", "expires": 1614350382}'
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
Serve = Callable[[socket.socket, int], None]

# A request is given 1 s; a peer that is not given up goes on for 100 s or more. A limit between the two, and no figure.
ENDS_SECONDS, GOES_ON_SECONDS = 30, 100


@contextmanager
def upstream(serve: Serve) -> Iterator[tuple[str, list[int]]]:
    """A server that gives each connection, with its number, to `serve`. Yields its URL and the numbers so far."""
    connections: list[int] = []
    closing = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def accept() -> None:
            while not closing.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                connections.append(len(connections))
                threading.Thread(target=handle, args=(connection, connections[-1]), daemon=True).start()

        def handle(connection: socket.socket, number: int) -> None:
            with connection:
                try:
                    serve(connection, number)
                except OSError:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/identity/hmac", connections
        finally:
            closing.set()
            thread.join()


def request(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        piece = connection.recv(65536)
        if not piece:
            raise OSError("the client went away")
        received += piece
    return received


def send(transport: Transport, url: str, seconds: float = 10.0) -> Answer:
    return transport.send("POST", url, {"Authorization": "Hmac a:b:1:c"}, deadline=Deadline.after(seconds))


def test_one_connection_serves_many_requests() -> None:
    def serve(connection: socket.socket, _: int) -> None:
        while True:
            request(connection)
            connection.sendall(GOOD)

    with upstream(serve) as (url, connections):
        transport = Transport()
        for _ in range(20):
            assert send(transport, url).payload["accessToken"] == "abc"
        assert len(connections) == 1


def test_a_connection_that_the_peer_closed_is_replaced() -> None:
    def serve(connection: socket.socket, _: int) -> None:
        request(connection)
        connection.sendall(GOOD)

    with upstream(serve) as (url, connections):
        transport = Transport()
        for _ in range(3):
            try:
                send(transport, url)
            except UpstreamUnavailable:  # closed just as it was used: told, and tried again by whoever retries
                send(transport, url)
        assert len(connections) >= 3


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n"
        % (BODY[:5], len(BODY) - 5, BODY[5:]),
        b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
        b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
        b"HTTP/1.1 201 Created\r\nConnection: close\r\n\r\n" + BODY,
    ],
)
def test_other_ways_to_send_a_good_answer_are_understood(answer: bytes) -> None:
    def serve(connection: socket.socket, _: int) -> None:
        request(connection)
        connection.sendall(answer)

    with upstream(serve) as (url, _):
        assert send(Transport(), url).payload == json.loads(BODY)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Pad: x\r\n" * 200 + b"\r\n" + BODY,
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n" + BODY,
        b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n",
        b"\r\n\r\n",
        b"",
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_a_documented_error(answer: bytes) -> None:
    def serve(connection: socket.socket, _: int) -> None:
        request(connection)
        connection.sendall(answer)

    with upstream(serve) as (url, _), pytest.raises((UpstreamProtocol, UpstreamUnavailable)) as caught:
        send(Transport(), url)
    assert caught.value.__cause__ is None


@pytest.fixture
def _deadline_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the request's deadline ends it: one read could not."""
    monkeypatch.setattr(transport_module, "READ_TIMEOUT_SECONDS", 300)


def drip(connection: socket.socket, pieces: bytes) -> None:
    for piece in pieces:
        connection.sendall(bytes([piece]))
        time.sleep(0.2)  # the slowness is what is tested


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HEADER = b"X-Pad: x\r\n" * 50


@pytest.mark.usefixtures("_deadline_alone")
@pytest.mark.parametrize(
    ("head", "dripping"),
    [
        (b"", b"HTTP/1.1 200 OK\r\n" + HEADER),
        (GOOD[:40], b" " * 500),
        (CHUNKED, b"1\r\n \r\n" * 100),
        (CHUNKED + b"2;", b"x" * 500),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", HEADER),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
    ],
    ids=["headers", "body", "chunks", "chunk extension", "trailers", "continue"],
)
def test_an_answer_that_drips_is_given_up_in_time(head: bytes, dripping: bytes) -> None:
    def serve(connection: socket.socket, _: int) -> None:
        request(connection)
        connection.sendall(head)
        drip(connection, dripping)

    with upstream(serve) as (url, _):
        started = time.monotonic()
        with pytest.raises(UpstreamUnavailable):
            send(Transport(), url, seconds=1.0)
        assert time.monotonic() - started < ENDS_SECONDS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(secret + signed.public_bytes(serialization.Encoding.PEM))
    return path


def over_tls(certificate: Path, serve: Serve) -> Serve:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def secured(connection: socket.socket, number: int) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            serve(wrapped, number)

    return secured


def test_a_certificate_that_nobody_vouches_for_is_refused_and_nothing_is_sent(certificate: Path) -> None:
    received: list[bytes] = []

    with upstream(over_tls(certificate, lambda connection, _: received.append(request(connection)))) as (url, _):
        with pytest.raises(UpstreamUnavailable) as caught:
            send(Transport(), url.replace("http:", "https:"))
        assert caught.value.reason == "SSLError"
    assert received == []


@pytest.mark.usefixtures("_deadline_alone")
def test_headers_that_drip_over_tls_are_given_up_in_time_too(certificate: Path) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        request(connection)
        if number == 0:
            connection.sendall(GOOD)
            request(connection)
        drip(connection, b"HTTP/1.1 200 OK\r\n" + HEADER)

    with upstream(over_tls(certificate, serve)) as (url, _):
        transport = Transport()
        transport._session.verify = str(certificate)
        url = url.replace("http:", "https:")
        assert send(transport, url).payload == json.loads(BODY)
        started = time.monotonic()
        with pytest.raises(UpstreamUnavailable):
            send(transport, url, seconds=1.0)
        assert time.monotonic() - started < ENDS_SECONDS


@pytest.mark.usefixtures("_deadline_alone")
def test_a_host_that_says_nothing_is_given_up_in_time() -> None:
    def serve(connection: socket.socket, _: int) -> None:
        request(connection)
        connection.settimeout(GOES_ON_SECONDS)
        connection.recv(1)

    with upstream(serve) as (url, _):
        started = time.monotonic()
        with pytest.raises(UpstreamUnavailable):
            send(Transport(), url, seconds=0.5)
        assert time.monotonic() - started < ENDS_SECONDS


@pytest.mark.parametrize("head", [b"", CHUNKED], ids=["headers", "body"])
def test_the_command_lines_call_gives_up_what_drips_too(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imburse_call, "READ_TIMEOUT_SECONDS", 1)

    def serve(connection: socket.socket, _: int) -> None:
        request(connection)
        connection.sendall(head)
        drip(connection, b"1\r\n \r\n" * 100 if head else b"HTTP/1.1 200 OK\r\n" + HEADER)

    with upstream(serve) as (url, _):
        started = time.monotonic()
        with pytest.raises(CommandError, match="no answer"):
            imburse_call.send(vended(base_url=url.removesuffix("/v1/identity/hmac")), "GET", "/v1/x")
        assert time.monotonic() - started < ENDS_SECONDS


@pytest.mark.parametrize("interim", ["102 Processing", "103 Early Hints", "199 Invented"])
def test_an_answer_in_front_of_the_answer_shifts_no_later_one(interim: str) -> None:
    """Taken for the whole answer, it would leave the real one to the next request: another tenant's token, or another caller."""
    answered = threading.Event()

    def serve(connection: socket.socket, _: int) -> None:
        while True:
            who = request(connection).split(b"Hmac ")[1].split(b":")[0]
            connection.sendall(f"HTTP/1.1 {interim}\r\nLink: </style>\r\n\r\n".encode())
            answered.wait(0.2)  # nothing sets it: the real answer comes a while later
            body = json.dumps({"accessToken": f"of-{who.decode()}"}).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with upstream(serve) as (url, connections):
        transport = Transport()
        for who in ("a", "b", "c"):
            answer = transport.send("POST", url, {"Authorization": f"Hmac {who}:b:1:c"}, deadline=Deadline.after(10))
            assert answer.payload["accessToken"] == f"of-{who}"
        assert len(connections) == 1


def test_after_a_change_of_protocol_the_connection_is_not_used_again() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        request(connection)
        if number == 0:
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n")
            request(connection)
        connection.sendall(GOOD)

    with upstream(serve) as (url, connections):
        transport = Transport()
        with pytest.raises(UpstreamProtocol):
            send(transport, url)
        assert send(transport, url).payload["accessToken"] == "abc"
        assert len(connections) == 2


@pytest.mark.parametrize("location", [b"", b"Location: /elsewhere\r\n"])
def test_the_body_of_a_redirect_is_not_read(location: bytes) -> None:
    sent: list[int] = []

    def serve(connection: socket.socket, _: int) -> None:
        request(connection)
        connection.sendall(b"HTTP/1.1 302 Found\r\nContent-Length: 1000000000\r\n" + location + b"\r\n")
        while True:
            sent.append(connection.send(b"x" * 65536))

    with upstream(serve) as (url, _), pytest.raises(UpstreamProtocol, match="redirect"):
        send(Transport(), url)
    assert sum(sent) < 50_000_000, "what the kernel buffers, not the whole"


def test_connecting_and_waiting_together_take_no_longer_than_there_is_time(certificate: Path) -> None:
    never = threading.Event()

    def slow(connection: socket.socket, _: int) -> None:
        request(connection)
        never.wait(1.5)  # within the time-out of a read, but after the deadline
        connection.sendall(GOOD)

    def serve(connection: socket.socket, number: int) -> None:
        never.wait(1.0)  # the handshake takes half of the time
        over_tls(certificate, slow)(connection, number)

    with upstream(serve) as (url, _):
        transport = Transport()
        transport._session.verify = str(certificate)
        with pytest.raises(UpstreamUnavailable):
            send(transport, url.replace("http:", "https:"), 2.0)
