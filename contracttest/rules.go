package contracttest

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/ordergate/ordergate/gen/api"
	"github.com/ordergate/ordergate/gen/errcode"
)

// rulesOf are what the `errors` of a refusal may say was broken, for the codes where that does not depend on the schema.
var rulesOf = map[errcode.Code][]errcode.Rule{
	errcode.REQ001: {
		errcode.RuleSyntax, errcode.RuleEncoding, errcode.RuleDepth, errcode.RuleNumber, errcode.RuleUnique, errcode.RuleOneDocument, errcode.RuleComplete, errcode.RuleRequired,
	},
	errcode.REQ004: {errcode.RuleAdditionalProperties},
	errcode.CAT003: {errcode.RuleActive}, errcode.CAT004: {errcode.RuleAvailable}, errcode.CAT005: {errcode.RuleExists},
	errcode.CPN001: {errcode.RuleCoupon}, errcode.CPN002: {errcode.RuleCoupon}, errcode.CPN003: {errcode.RuleCoupon}, errcode.CPN004: {errcode.RuleCoupon},
	errcode.INV006: {errcode.RuleMinimum, errcode.RuleMaximum},
	errcode.ORD003: {errcode.RuleUnique}, errcode.ORD004: {errcode.RulePrice}, errcode.ORD005: {errcode.RuleCurrency}, errcode.ORD008: {errcode.RuleTotal},
	errcode.ORD011: {errcode.RuleTaken}, errcode.RFD001: {errcode.RuleRefundable},
	errcode.SHP002: {errcode.RuleOrdered, errcode.RuleUnique, errcode.RuleUnshipped},
}

// beyondSchema are the rules that a request may break beside those of its schema.
var beyondSchema = map[errcode.Code][]errcode.Rule{
	errcode.REQ002: {errcode.RuleUnique},
	errcode.REQ003: {
		errcode.RuleAdditionalProperties, errcode.RuleEncoding, errcode.RuleSignature, // of any parameter
		errcode.RuleAlone, errcode.RulePast, errcode.RuleMinimum, // of times
	},
}

// checkBroken: a refusal for the form of a request names rules that the request breaks.
func (s *suite) checkBroken(r reply, broken rules) {
	code := errcode.Code(r.problem.Code)
	for i, f := range r.problem.Errors {
		rule := errcode.Rule(f.Rule)
		beyond := slices.Contains(beyondSchema[code], rule) || mergedRule(r, f)
		s.foundIf(!broken[rule] && !beyond && code != errcode.IDEM004, r, below("/body/errors", strconv.Itoa(i), "rule"),
			"is %q at %q, and the request breaks %v", f.Rule, f.Pointer, slices.Sorted(maps.Keys(broken)))
	}
}

// mergedRule tells whether a fault may be one of the resource as a patch makes it, which the schema of the patch cannot see.
func mergedRule(r reply, f api.Fault) bool {
	return r.op.method == http.MethodPatch && (f.Rule == string(errcode.RuleRequired) || f.Rule == string(errcode.RuleMaxProperties))
}

// checkFaults: the rule of each fault of a refusal goes with its code, and its message with the rule, in one of the languages.
func (s *suite) checkFaults(r reply, languages ...bool) {
	allowed := rulesOf[errcode.Code(r.problem.Code)]
	for i, f := range r.problem.Errors {
		rule, at := errcode.Rule(f.Rule), below("/body/errors", strconv.Itoa(i))
		s.foundIf(allowed != nil && !slices.Contains(allowed, rule), r, at+"/rule", "is %q, and %s is for %v", f.Rule, r.problem.Code, allowed)
		said := slices.ContainsFunc(languages, func(chinese bool) bool {
			before, after, open := strings.Cut(rule.Message(chinese, hole), hole)
			return f.Message == before && !open || open && len(f.Message) > len(before+after) && strings.HasPrefix(f.Message, before) && strings.HasSuffix(f.Message, after)
		})
		s.foundIf(!said, r, at+"/message", "is %q, which does not say %q: %q", f.Message, f.Rule, rule.Message(languages[0], "..."))
	}
}

// hole stands for what a rule demands, in its message.
const hole = "\x00"
