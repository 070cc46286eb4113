package command

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ordergate/ordergate/gen/api"
)

// applyPatch applies a merge patch (RFC 7396) to the present state: a member that is left out stays, null removes, objects are merged, all
// else is replaced. The patch satisfies the contract, so that its result can be decoded.
func applyPatch[T any](present T, patch api.MergePatch) (patched T, err error) {
	b, err := json.Marshal(present)
	var target, change any
	if err == nil {
		err = errors.Join(json.Unmarshal(b, &target), json.Unmarshal(patch, &change))
	}
	if err == nil {
		b, err = json.Marshal(mergePatch(target, change))
	}
	if err == nil {
		err = json.Unmarshal(b, &patched)
	}
	if err != nil {
		return patched, fmt.Errorf("apply patch: %w", err)
	}
	return patched, nil
}

func mergePatch(target, patch any) any {
	change, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, value := range change {
		if value == nil {
			delete(object, name)
		} else {
			object[name] = mergePatch(object[name], value)
		}
	}
	return object
}
