package check

import (
	"regexp"
	"regexp/syntax"
)

// Pattern is a `pattern` of the contract. A sequence of characters and classes of ASCII, each with a count, that begins with ^ and ends with $ is matched
// by a loop over the bytes, any other by package regexp. The verdict is regexp's in either case.
type Pattern struct {
	text  string
	parts []part         // of a pattern that is a sequence
	slow  *regexp.Regexp // of any other
}

// part is one element of a sequence: min to max characters of a set.
type part struct {
	set      set
	min, max int // max is -1 without a bound
}

// set is a set of bytes: a table, because a look-up in it takes half of what a bit takes.
type set [256]bool

func (s *set) overlaps(o *set) bool {
	for b := range s {
		if s[b] && o[b] {
			return true
		}
	}
	return false
}

// MustPattern compiles a pattern. It panics if regexp does not know it.
func MustPattern(pattern string) *Pattern {
	p := &Pattern{text: pattern, slow: regexp.MustCompile(pattern)}
	if tree, err := syntax.Parse(pattern, syntax.Perl); err == nil {
		if parts, ok := sequence(tree); ok {
			p.parts, p.slow = parts, nil
		}
	}
	return p
}

// String is the pattern as the contract has it.
func (p *Pattern) String() string { return p.text }

// Match tells whether a text, in UTF-8, matches. It allocates nothing.
func (p *Pattern) Match(text string) bool {
	if p.slow != nil {
		return p.slow.MatchString(text)
	}
	at := 0
	for i := range p.parts {
		part := &p.parts[i]
		end := len(text)
		if part.max >= 0 && part.max < end-at {
			end = at + part.max
		}
		from := at
		for at < end && part.set[text[at]] {
			at++
		}
		if at-from < part.min {
			return false
		}
	}
	return at == len(text)
}

// sequence reads the parts of a pattern. ok is false if it is no sequence, or one in which a loop that takes all it can would have to give
// something back: a part whose count varies shares no character with what may stand behind it.
func sequence(tree *syntax.Regexp) (parts []part, ok bool) {
	if tree.Op != syntax.OpConcat || len(tree.Sub) < 2 || tree.Sub[0].Op != syntax.OpBeginText || tree.Sub[len(tree.Sub)-1].Op != syntax.OpEndText {
		return nil, false
	}
	for _, sub := range tree.Sub[1 : len(tree.Sub)-1] {
		if sub.Op == syntax.OpLiteral && sub.Flags&syntax.FoldCase == 0 {
			for _, r := range sub.Rune {
				one := part{min: 1, max: 1}
				if !one.set.addRange(r, r) {
					return nil, false
				}
				parts = append(parts, one)
			}
			continue
		}
		p, ok := counted(sub)
		if !ok {
			return nil, false
		}
		parts = append(parts, p)
	}
	for i := range parts {
		for j := i + 1; parts[i].min != parts[i].max && j < len(parts); j++ {
			if parts[i].set.overlaps(&parts[j].set) {
				return nil, false
			}
			if parts[j].min > 0 {
				break
			}
		}
	}
	return parts, true
}

// counted reads one character or class with its count.
func counted(tree *syntax.Regexp) (p part, ok bool) {
	p = part{min: 1, max: 1}
	switch tree.Op {
	case syntax.OpStar:
		p.min, p.max = 0, -1
	case syntax.OpPlus:
		p.max = -1
	case syntax.OpQuest:
		p.min = 0
	case syntax.OpRepeat:
		p.min, p.max = tree.Min, tree.Max
	default: // one
	}
	if tree.Op != syntax.OpCharClass && tree.Op != syntax.OpLiteral {
		if len(tree.Sub) != 1 {
			return p, false
		}
		tree = tree.Sub[0]
	}
	switch {
	case tree.Op == syntax.OpLiteral && len(tree.Rune) == 1 && tree.Flags&syntax.FoldCase == 0:
		return p, p.set.addRange(tree.Rune[0], tree.Rune[0])
	case tree.Op == syntax.OpCharClass:
		for i := 0; i < len(tree.Rune); i += 2 {
			if !p.set.addRange(tree.Rune[i], tree.Rune[i+1]) {
				return p, false
			}
		}
		return p, true
	}
	return p, false
}

// addRange is false if a character of the range is not ASCII.
func (s *set) addRange(from, to rune) bool {
	if to >= 0x80 {
		return false
	}
	for r := from; r <= to; r++ {
		s[byte(r)] = true
	}
	return true
}
