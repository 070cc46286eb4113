package contracttest

import (
	"fmt"
	"reflect"
	"strconv"
	"time"
)

func (s *suite) isSaga(body any) bool {
	o, _ := body.(map[string]any)
	_, steps := o["steps"].([]any)
	return steps && o["order_id"] != nil
}

// checkSteps: a step that has ended stays as it ended, and the times of steps lie within those of their order.
func (s *suite) checkSteps(body any, wrong wrongFact) {
	o, _ := body.(map[string]any)
	orderID, _ := o["order_id"].(string)
	steps, _ := o["steps"].([]any)
	made := time.Time{}
	if order := s.facts.things[orderID]; order != nil {
		text, _ := order.fixed["created_at"].(string)
		made, _ = time.Parse(time.RFC3339Nano, text)
	}
	for i, v := range steps {
		step, _ := v.(map[string]any)
		at := "/body/steps/" + strconv.Itoa(i)
		for _, name := range []string{"started_at", "finished_at"} {
			text, _ := step[name].(string)
			t, err := time.Parse(time.RFC3339Nano, text)
			wrong(err == nil && t.Before(made), at+"/"+name, "is %s, before the order was placed", text)
		}
		ended := step["status"] == "done" || step["status"] == "failed" || step["status"] == "skipped"
		wrong(step["status"] == "done" && (step["started_at"] == nil || step["finished_at"] == nil), at, "is done, and has no times")
		if !ended || i == 0 && step["attempt"] == nil {
			continue
		}
		key := fmt.Sprint("step ", orderID, " ", step["name"], " ", step["attempt"])
		t := s.facts.things[key]
		if t == nil {
			s.facts.things[key] = &thing{kind: "step", fixed: step}
			continue
		}
		wrong(!reflect.DeepEqual(t.fixed, step), at, "is %s, and it had ended as %s", short(string(encode(step))), short(string(encode(t.fixed))))
	}
}
