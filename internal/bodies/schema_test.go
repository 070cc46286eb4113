package bodies

import (
	"encoding/json"
	"testing"
)

func TestWhatStandsBesideAReferenceIsRefused(t *testing.T) {
	t.Parallel()
	parts := &openAPIParts{}
	parts.Components.Schemas = map[string]json.RawMessage{"Name": json.RawMessage(`{"type":"string"}`)}
	for text, wrong := range map[string]bool{
		`{"$ref":"#/components/schemas/Name"}`:                                                    false,
		`{"$ref":"#/components/schemas/Name","description":"x"}`:                                  false,
		`{"$ref":"#/components/schemas/Name","maxLength":5}`:                                      true,
		`{"properties":{"a":{"$ref":"#/components/schemas/Name","minLength":1}},"type":"object"}`: true,
	} {
		if _, err := parts.schema(json.RawMessage(text)); (err != nil) != wrong {
			t.Errorf("%s: %v", text, err)
		}
	}
}
