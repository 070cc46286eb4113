package contracttest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
)

// checkEcho: what was sent comes back under the same name. A list that was sent is in the answer's list, in any order.
func (s *suite) checkEcho(r reply, body any, wrong wrongFact) {
	var sent any
	d := json.NewDecoder(bytes.NewReader(r.content))
	d.UseNumber()
	if len(r.content) == 0 || d.Decode(&sent) != nil {
		return
	}
	var compare func(sent, got any, at string)
	compare = func(sent, got any, at string) {
		switch sent := sent.(type) {
		case map[string]any:
			object, isObject := got.(map[string]any)
			for _, name := range sortedKeys(sent) {
				value, there := object[name]
				switch {
				case !isObject:
					wrong(true, at, "is %s, and an object was sent", short(string(encode(got))))
					return
				case sent[name] == nil && r.op.method == http.MethodPatch: // it removes
					empty, _ := value.(map[string]any)
					wrong(value != nil && (empty == nil || len(empty) > 0), at+"/"+name, "is %s, and null was sent", short(string(encode(value))))
				case there:
					compare(sent[name], value, at+"/"+name)
				case sent[name] != nil && at == "/body/metadata":
					wrong(true, at+"/"+name, "is not there, and it was sent")
				}
			}
		case []any:
			list, _ := got.([]any)
			wrong(len(list) != len(sent), at, "has %d entries, and %d were sent", len(list), len(sent))
			for i := range sent {
				wrong(!slices.ContainsFunc(list, func(entry any) bool { return contains(entry, sent[i]) }), at+"/"+strconv.Itoa(i),
					"was sent as %s, and the answer has it nowhere", short(string(encode(sent[i]))))
			}
		case json.Number:
			a, errA := sent.Float64()
			n, _ := got.(json.Number)
			b, errB := n.Float64()
			wrong(errA != nil || errB != nil || a != b, at, "is %s, and %s was sent", encode(got), sent)
		default:
			wrong(!reflect.DeepEqual(sent, got), at, "is %s, and %s was sent", short(string(encode(got))), short(string(encode(sent))))
		}
	}
	compare(sent, body, "/body")
}

// contains tells whether a value has all that a smaller one has.
func contains(whole, part any) bool {
	switch part := part.(type) {
	case map[string]any:
		object, ok := whole.(map[string]any)
		for name, value := range part {
			if other, there := object[name]; there && !contains(other, value) {
				return false
			}
		}
		return ok
	case json.Number:
		a, _ := part.Float64()
		n, ok := whole.(json.Number)
		b, err := n.Float64()
		return ok && err == nil && a == b
	}
	return reflect.DeepEqual(whole, part)
}
