package order

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// ID is a UUIDv7 in our layout: 48 bits of Unix milliseconds, version, a 12-bit account bucket (the future shard and home
// region), variant, 38 random bits, and a keyed check of 24 bits over all that stands before it. It sorts by time.
type ID [16]byte

// Owner is the account and the mode, test or live, that a row belongs to. It leads every key, lock and unique constraint.
type Owner struct {
	Account int32
	Mode    string
}

// Ref identifies a row of an owner by its id: an order, a payment, a shipment.
type Ref struct {
	Owner
	ID ID
}

// RefOf is the Ref of a row's key columns.
func RefOf(account int32, mode string, id [16]byte) Ref {
	return Ref{Owner{account, mode}, ID(id)}
}

// Item identifies a row of an owner by its sku: a product, a stock.
type Item struct {
	Owner
	SKU string
}

// AppendRow appends the name of an owner's row in consistency tokens, for a kind whose rows have names that the client chose: such a name may be a row
// of each owner. The kind's prefix stands before it.
func AppendRow(b []byte, prefix string, owner Owner, name string) []byte {
	b = strconv.AppendInt(append(b, prefix...), int64(owner.Account), 10)
	b = append(append(append(b, '.'), owner.Mode...), '.')
	return append(b, name...)
}

// Compare orders items by account, mode and sku, as locks are taken.
func (it Item) Compare(other Item) int {
	return cmp.Or(cmp.Compare(it.Account, other.Account), cmp.Compare(it.Mode, other.Mode), cmp.Compare(it.SKU, other.SKU))
}

// Prefixes of ids.
const (
	PrefixOrder      = "ord_"
	PrefixPayment    = "pay_"
	PrefixRefund     = "ref_"
	PrefixShipment   = "shp_"
	PrefixAdjustment = "adj_"
	PrefixEvent      = "evt_"
	PrefixKey        = "key_"
	PrefixProduct    = "prd_" // before a sku, in caches, and in consistency tokens before its owner
)

// checkAt is the offset of the keyed check.
const checkAt = 13

// IDs mints ids and tells genuine from forged ones. The key must be the same in every process of a system and for ever.
type IDs struct{ inner, outer [sha256.BlockSize]byte } // the key as HMAC (RFC 2104) begins its two hashes, so that a check allocates nothing

// NewIDs returns an IDs with the given secret key.
func NewIDs(key []byte) (m IDs) {
	if len(key) > sha256.BlockSize {
		sum := sha256.Sum256(key)
		key = sum[:]
	}
	copy(m.inner[:], key)
	m.outer = m.inner
	for i := range m.inner {
		m.inner[i] ^= 0x36
		m.outer[i] ^= 0x5c
	}
	return m
}

// Mint returns a new id of the account at the instant now. 38 random bits per account bucket and millisecond make two equal
// ids improbable; the primary keys make them harmless.
func (m IDs) Mint(now time.Time, account int32) ID {
	var id ID
	ms := now.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	bucket := uint16(account) & 0x0fff
	id[6] = 0x70 | byte(bucket>>8)
	id[7] = byte(bucket)
	_, _ = rand.Read(id[8:checkAt]) // never fails: crypto/rand ends the program instead
	id[8] = 0x80 | id[8]&0x3f
	sum := m.check(id)
	copy(id[checkAt:], sum[:])
	return id
}

// Genuine tells whether the id was minted with this key. A forged id passes once in 16.7 million.
func (m IDs) Genuine(id ID) bool {
	sum := m.check(id)
	return hmac.Equal(id[checkAt:], sum[:len(id)-checkAt])
}

// check is the HMAC-SHA-256 of what the keyed check is over.
func (m IDs) check(id ID) [sha256.Size]byte {
	first := [sha256.BlockSize + checkAt]byte{}
	copy(first[copy(first[:], m.inner[:]):], id[:checkAt])
	second, sum := [sha256.BlockSize + sha256.Size]byte{}, sha256.Sum256(first[:])
	copy(second[copy(second[:], m.outer[:]):], sum[:])
	return sha256.Sum256(second[:])
}

// digit has the values of lower-case hex digits, and 0xff for all other bytes.
var digit = func() (values [256]byte) {
	for b := range values {
		values[b] = 0xff
		if i := strings.IndexByte("0123456789abcdef", byte(b)); i >= 0 {
			values[b] = byte(i)
		}
	}
	return values
}()

// Parse reads prefix + 32 lower-case hex digits; ok is false for anything else. It does not check that the id is genuine.
func Parse(prefix, s string) (id ID, ok bool) {
	digits, found := strings.CutPrefix(s, prefix)
	if !found || len(digits) != 2*len(id) {
		return ID{}, false
	}
	for i := range id {
		high, low := digit[digits[2*i]], digit[digits[2*i+1]]
		if high|low > 0xf {
			return ID{}, false
		}
		id[i] = high<<4 | low
	}
	return id, true
}

// Format writes the id as clients see it.
func (id ID) Format(prefix string) string { return string(id.Append(make([]byte, 0, 64), prefix)) }

// Append appends the id as clients see it.
func (id ID) Append(b []byte, prefix string) []byte {
	return hex.AppendEncode(append(b, prefix...), id[:])
}

// Time is the instant of minting, in milliseconds.
func (id ID) Time() time.Time {
	var ms int64
	for i := range 6 {
		ms = ms<<8 | int64(id[i])
	}
	return time.UnixMilli(ms).UTC()
}

// Shard is the order's virtual shard, 0..255: eight of its random bits. It is never renumbered.
func (id ID) Shard() int16 { return int16(id[12]) }

// IsZero tells an unset id.
func (id ID) IsZero() bool { return id == ID{} }
