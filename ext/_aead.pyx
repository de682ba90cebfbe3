"""ChaCha20-Poly1305 without a call through Python's layers; the specification is
`dhtos._reference.aead` (RFC 8439). The cipher itself is libsodium's, at the addresses given."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcpy

ctypedef unsigned char uchar
ctypedef unsigned long long ull
ctypedef int (*Encrypt)(uchar *, ull *, const uchar *, ull, const uchar *, ull, const uchar *,
                        const uchar *, const uchar *) noexcept nogil
ctypedef int (*Decrypt)(uchar *, ull *, uchar *, const uchar *, ull, const uchar *, ull,
                        const uchar *, const uchar *) noexcept nogil

cdef enum:
    KEY_BYTES = 32
    TAG_BYTES = 16
    NONCE_BYTES = 12


cdef inline void nonce_of(uint64_t counter, uchar *nonce) noexcept nogil:
    """Four bytes of zero and the counter, the lowest byte first."""
    cdef int i
    for i in range(4):
        nonce[i] = 0
    for i in range(8):
        nonce[4 + i] = (counter >> (8 * i)) & 0xFF


cdef const uchar *key_of(bytes key) except NULL:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, got {len(key)}")
    return <const uchar *> PyBytes_AS_STRING(key)


cdef class Aead:
    """See the twin."""

    cdef Encrypt _encrypt
    cdef Decrypt _decrypt

    def __init__(self, uintptr_t encrypt, uintptr_t decrypt):
        self._encrypt = <Encrypt> encrypt
        self._decrypt = <Decrypt> decrypt

    def seal(self, bytes key, uint64_t counter, bytes plaintext, bytes associated):
        return self._sealed(key, counter, plaintext, associated, 0)

    def seal_after(self, bytes key, uint64_t counter, bytes plaintext, bytes head):
        return self._sealed(key, counter, plaintext, head, len(head))

    cdef bytes _sealed(
        self, bytes key, uint64_t counter, bytes plaintext, bytes associated, Py_ssize_t kept
    ):
        """What is sealed, after so many bytes of what it is sealed with."""
        cdef const uchar *secret = key_of(key)
        cdef Py_ssize_t length = len(plaintext)
        cdef uchar[NONCE_BYTES] nonce
        cdef bytes whole = PyBytes_FromStringAndSize(NULL, kept + length + TAG_BYTES)
        cdef uchar *out = <uchar *> PyBytes_AS_STRING(whole)
        cdef const uchar *head = <const uchar *> PyBytes_AS_STRING(associated)
        nonce_of(counter, nonce)
        memcpy(out, head, kept)
        self._encrypt(
            out + kept, NULL, <const uchar *> PyBytes_AS_STRING(plaintext), length,
            head, len(associated), NULL, nonce, secret,
        )
        return whole

    def unseal(self, bytes key, uint64_t counter, bytes sealed, bytes associated):
        cdef const uchar *text = <const uchar *> PyBytes_AS_STRING(sealed)
        cdef const uchar *head = <const uchar *> PyBytes_AS_STRING(associated)
        return self._opened(key, counter, text, len(sealed), head, len(associated))

    def unseal_after(self, bytes key, uint64_t counter, bytes datagram, Py_ssize_t head):
        cdef const uchar *text = <const uchar *> PyBytes_AS_STRING(datagram)
        if not 0 <= head <= len(datagram):
            return None
        return self._opened(key, counter, text + head, len(datagram) - head, text, head)

    cdef object _opened(
        self, bytes key, uint64_t counter, const uchar *sealed, Py_ssize_t length,
        const uchar *associated, Py_ssize_t count,
    ):
        cdef const uchar *secret = key_of(key)
        cdef uchar[NONCE_BYTES] nonce
        cdef bytes plain
        if length < TAG_BYTES:
            return None
        plain = PyBytes_FromStringAndSize(NULL, length - TAG_BYTES)
        nonce_of(counter, nonce)
        if self._decrypt(
            <uchar *> PyBytes_AS_STRING(plain), NULL, NULL, sealed, length,
            associated, count, nonce, secret,
        ):
            return None
        return plain
