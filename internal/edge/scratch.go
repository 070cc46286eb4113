package edge

import "strings"

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
