package edge

import (
	"math/rand/v2"
	"strings"
)

// scratch is what a request takes over from an earlier one of the same pool. Only the strings that keep made may be kept beyond the request.
type scratch struct {
	headers []header  // of the response
	trace   [1]string // the value of X-Trace-Id
	limit   [1]string // that of RateLimit
	bytes   []byte
	block   strings.Builder // of strings that were made
}

// header is a response header. Its value stands in an array, so that the header map can have a slice of it: net/http copies the map
// before the response is out.
type header struct {
	name  string // canonical
	value [1]string
}

// blockSize is how many bytes of strings take one allocation.
const blockSize = 1024

// keep makes a string that lives as long as somebody has it. Many of them are one allocation.
func (s *scratch) keep(text []byte) string {
	if s.block.Cap()-s.block.Len() < len(text) {
		s.block.Reset()
		s.block.Grow(max(blockSize, len(text)))
	}
	from := s.block.Len()
	s.block.Write(text)
	return s.block.String()[from:]
}

// newTraceID is a UUID of version 4. It is no secret, so that the runtime's generator is good enough.
func (s *scratch) newTraceID() string {
	var id [16]byte
	high, low := rand.Uint64(), rand.Uint64() //nolint:gosec // no secret
	for i := range 8 {
		id[i], id[8+i] = byte(high>>(8*i)), byte(low>>(8*i))
	}
	id[6], id[8] = 0x40|id[6]&0x0f, 0x80|id[8]&0x3f
	const digits = "0123456789abcdef"
	s.bytes = append(s.bytes[:0], "00000000-0000-0000-0000-000000000000"...)
	text, at := s.bytes, 0
	for _, b := range id {
		if text[at] == '-' {
			at++
		}
		text[at], text[at+1] = digits[b>>4], digits[b&0x0f]
		at += 2
	}
	return s.keep(text)
}
