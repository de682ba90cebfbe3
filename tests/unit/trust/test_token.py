"""The join token: what it looks like, what it survives, and what is said of wrong ones."""

import pickle
from base64 import b32encode
from hashlib import blake2b

import pytest

from dhtos.core.limits import TOKEN_SEEDS_MAX
from dhtos.errors import UsageError
from dhtos.trust.keys import KeyPair
from dhtos.trust.token import SECRET_BYTES, Token, domain, root_hash

ROOT = bytes(range(20))
SECRET = bytes(range(100, 116))
V4 = ("192.0.2.7", 7400)
V6 = ("2001:db8::7", 65535)
TOKEN = Token(ROOT, SECRET, (V4, V6))
GOLDEN = (
    "dhtos1-aaaqeayeaudaocajbifqydiob4ibceqtmrswmz3infvgw3dnnzxxa"
    "4lsomcmaaaca4ooqbraaeg3qaaaaaaaaaaaaaaaaaah777rp6bcfy"
)


def made(body):
    """The text of a token with this content and the right checksum."""
    checksum = blake2b(body, digest_size=4, person=b"dhtos-token").digest()
    return "dhtos1-" + b32encode(body + checksum).decode().rstrip("=").lower()


def packed(host, port, family=4):
    return bytes([family]) + host + port.to_bytes(2)


# --- as it should be ------------------------------------------------------------------------------


def test_it_comes_back():
    assert Token.parse(str(TOKEN)) == TOKEN
    assert Token.parse(str(TOKEN)).seeds == (V4, V6)


def test_what_it_looks_like():
    """Tokens are handed from one release to another: these bytes stay."""
    text = str(TOKEN)
    assert text == GOLDEN
    body = ROOT + SECRET + packed(b"\xc0\x00\x02\x07", 7400)
    assert str(Token(ROOT, SECRET, (V4,))) == made(body)
    body += packed(bytes.fromhex("20010db8000000000000000000000007"), 65535, family=6)
    assert text == made(body)


def test_one_seed_fits_a_line():
    assert len(str(Token(ROOT, SECRET, (V4,)))) == 83
    assert len(str(Token(ROOT, SECRET, (V6,) * TOKEN_SEEDS_MAX))) == 315


@pytest.mark.parametrize("count", range(1, TOKEN_SEEDS_MAX + 1))
def test_any_number_of_seeds_in_their_order(count):
    both = [(f"10.0.0.{n}", 7400 + n) if n % 2 else (f"fd00::{n}", n) for n in range(1, 9)]
    seeds = tuple(both[:count])
    assert Token.parse(str(Token(ROOT, SECRET, seeds))).seeds == seeds


@pytest.mark.parametrize(
    "spoil",
    [
        str.upper,
        str.title,
        lambda text: f"  {text}\n",
        lambda text: f"{text[:40]}\n{text[40:]}",
        lambda text: f"{text[:40]}\r\n    {text[40:]}\r\n",
        lambda text: " ".join(text),
    ],
)
def test_what_copying_does_to_it(spoil):
    assert Token.parse(spoil(str(TOKEN))) == TOKEN


def test_an_address_has_one_spelling():
    token = Token(ROOT, SECRET, (("2001:DB8:0:0::7", 1), ("::ffff:192.0.2.7", 2)))
    assert token.seeds == (("2001:db8::7", 1), ("192.0.2.7", 2))
    assert Token.parse(str(token)) == token


def test_it_is_a_value():
    again = Token(ROOT, SECRET, (V4, V6))
    assert again == TOKEN
    assert hash(again) == hash(TOKEN)
    assert pickle.loads(pickle.dumps(TOKEN)) == TOKEN
    assert Token(ROOT, bytes(16), (V4, V6)) != TOKEN
    with pytest.raises(AttributeError):
        TOKEN.secret = bytes(16)


def test_its_repr_may_be_logged():
    text = repr([TOKEN])
    assert "192.0.2.7" in text
    assert ROOT[:4].hex() in text
    for spelling in (SECRET.hex(), repr(SECRET), str(TOKEN)[40:50], "defg"):
        assert spelling not in text


# --- the root hash --------------------------------------------------------------------------------


def test_the_root_hash():
    public = KeyPair(bytes(32)).public
    assert root_hash(public) == blake2b(public, digest_size=20, person=b"dhtos-root").digest()
    assert root_hash(public).hex() == "0649d3d51fa52351cb5a9dedc2e84a1ae591028f"
    assert root_hash(public) != blake2b(public, digest_size=20).digest(), "it has a domain"
    assert root_hash(public) != root_hash(KeyPair(bytes(31) + b"\1").public)


# --- wrong ones -----------------------------------------------------------------------------------


def told(text):
    """What the user reads: one line, with nothing of the token."""
    with pytest.raises(UsageError) as caught:
        Token.parse(text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 160
    code = text.strip().partition("-")[2]
    assert len(code) < 8 or code[:8] not in message
    return message


@pytest.mark.parametrize(
    "text",
    ["", " ", "dhtos", "dhtos1", "dhtos-", "dhtosx-abc", "10.0.0.7:7400", "xdhtos1-abc", "\0" * 9],
)
def test_what_is_no_token(text):
    assert told(text) == "this is not a join token, which begins with dhtos1-"


@pytest.mark.parametrize("prefix", ["dhtos2-", "dhtos10-", "dhtos0-", "DHTOS2-", "dhtos01-"])
def test_a_token_of_another_version(prefix):
    message = told(prefix + str(TOKEN).partition("-")[2])
    assert f"begins with {prefix.lower()}, and this dhtos reads dhtos1-" in message
    assert "run the version here that printed it" in message


def test_a_token_that_was_cut_off():
    text = str(TOKEN)
    for length in range(len("dhtos1-"), len(text)):
        assert "mistyped or cut off" in told(text[:length])
    assert "mistyped or cut off" in told("dhtos1-" + text[8:])


def test_every_wrong_letter():
    text = str(TOKEN)
    for place in range(len("dhtos1-"), len(text)):
        for letter in "abcdefghijklmnopqrstuvwxyz234567":
            if letter != text[place]:
                wrong = text[:place] + letter + text[place + 1 :]
                with pytest.raises(UsageError, match="mistyped or cut off"):
                    Token.parse(wrong)


@pytest.mark.parametrize("letter", "0189-=_.\u0131\u017f\u00e9\U0001f600")
def test_letters_that_base32_lacks(letter):
    text = str(TOKEN)
    for place in (7, 40, len(text) - 1):
        assert "mistyped or cut off" in told(text[:place] + letter + text[place + 1 :])
    assert "mistyped or cut off" in told(text + letter)


def test_letters_that_change_places():
    text = str(TOKEN)
    for place in range(len("dhtos1-"), len(text) - 1):
        one, two = text[place], text[place + 1]
        if one != two:
            assert "mistyped" in told(text[:place] + two + one + text[place + 2 :])


def test_an_endless_text_is_not_read():
    assert "mistyped or cut off" in told("dhtos1-" + "a" * 10_000_000)
    assert "mistyped or cut off" in told(str(TOKEN) + "a" * 10_000_000)


HEAD = ROOT + SECRET
SEED = packed(b"\x0a\x00\x00\x07", 7400)


@pytest.mark.parametrize(
    ("seeds", "why"),
    [
        (b"", "a token names 1..8 seeds, got 0"),
        (SEED * 9, "a token names 1..8 seeds, got 9"),
        (packed(b"\x0a\x00\x00\x07", 0), "port must be 1..65535, got 0"),
        (packed(bytes(4), 7400), "a seed has an address to send to, got '0.0.0.0'"),
        (packed(b"\xe0\x00\x00\x01", 7400), "a seed has an address to send to, got '224.0.0.1'"),
        (packed(bytes(16), 1, family=6), "a seed has an address to send to, got '::'"),
        (packed(b"\x0a\x00\x00\x07", 1, family=5), "a seed is neither IPv4 nor IPv6"),
        (packed(b"\x0a\x00\x00\x07", 1, family=0), "a seed is neither IPv4 nor IPv6"),
        (SEED + SEED[:1], "a seed is neither IPv4 nor IPv6"),
        (SEED + SEED[:-1], "a seed is neither IPv4 nor IPv6"),
        (SEED + SEED[:4], "a seed is neither IPv4 nor IPv6"),
        (b"\x06" + SEED[1:], "a seed is neither IPv4 nor IPv6"),
    ],
)
def test_seeds_that_nobody_can_use(seeds, why):
    """The checksum is right, so whoever made it made it wrong."""
    message = told(made(HEAD + seeds))
    assert message == f"the join token cannot be used: {why}; ask for a new one"


@pytest.mark.parametrize("length", [0, 1, 20, 35])
def test_a_checksum_of_too_little(length):
    assert "mistyped or cut off" in told(made(HEAD[:length]))


@pytest.mark.parametrize(
    ("seeds", "why"),
    [
        ((), "1..8 seeds, got 0"),
        ((V4,) * 9, "1..8 seeds, got 9"),
        ((("example.org", 7400),), "numeric address, got 'example.org'"),
        ((("", 7400),), "numeric address, got ''"),
        ((("0.0.0.0", 7400),), "address to send to, got '0.0.0.0'"),
        ((("::", 7400),), "address to send to, got '::'"),
        ((("::ffff:0.0.0.0", 7400),), "address to send to, got '::ffff:0.0.0.0'"),
        ((("ff02::1", 7400),), "address to send to, got 'ff02::1'"),
        ((("fe80::1%eth0", 7400),), "address that others know, got 'fe80::1%eth0'"),
        ((("10.0.0.7", 0),), "port must be 1..65535, got 0"),
        ((("10.0.0.7", 65536),), "port must be 1..65535, got 65536"),
    ],
)
def test_seeds_that_no_token_is_made_of(seeds, why):
    with pytest.raises(UsageError) as caught:
        Token(ROOT, SECRET, seeds)
    assert str(caught.value).endswith(why)


@pytest.mark.parametrize(
    ("root", "secret"), [(ROOT[1:], SECRET), (ROOT, SECRET + b"x"), (b"", b"")]
)
def test_what_we_make_has_the_right_size(root, secret):
    with pytest.raises(AssertionError):
        Token(root, secret, (V4,))


def test_a_signature_of_one_cluster_is_for_nothing_else():
    assert domain(b"record", b"\xab" * 20) == b"record " + b"ab" * 20
    assert domain(b"record", b"\xab" * 20) != domain(b"record", b"\xac" * 20)
    assert domain(b"record", b"\xab" * 20) != domain(b"cert", b"\xab" * 20)


def test_a_token_for_visitors_holds_no_secret() -> None:
    token = Token.to_visit(bytes(range(20)), (("10.0.0.1", 7400),))
    assert token.is_visit
    assert token.secret == bytes(SECRET_BYTES)
    assert Token.parse(str(token)) == token
    assert not Token(token.root, bytes(15) + b"\1", token.seeds).is_visit
