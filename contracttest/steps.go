package contracttest

import (
	"fmt"
	"reflect"
	"slices"
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
	s.checkPlan(orderID, steps, wrong)
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

// planned is the order in which the steps of a payment attempt are planned. Those that take back come behind them.
var planned = map[string]int{"reserve_stock": 1, "authorize": 2, "confirm_stock": 3, "capture": 4}

// checkPlan: steps stand in the order in which they were planned, which only grows. The first one reserves the stock, and each attempt to pay has an
// authorization. A step that was never sent has no tries.
func (s *suite) checkPlan(orderID string, steps []any, wrong wrongFact) {
	plan := make([]string, 0, len(steps))
	attempts, last := int64(0), 0
	for i, v := range steps {
		step, _ := v.(object)
		name, attempt, at := text(step, "name"), number(step, "attempt"), "/body/steps/"+strconv.Itoa(i)
		plan = append(plan, fmt.Sprint(name, " ", attempt))
		rank := planned[name]
		wrong((i == 0) != (name == "reserve_stock"), at+"/name", "is %q in place %d", name, i+1)
		if name == "authorize" {
			attempts, last = attempts+1, 0
			wrong(attempt != attempts, at+"/attempt", "is %d of authorization %d", attempt, attempts)
		}
		wrong(attempt > max(attempts, 1), at+"/attempt", "is %d after %d authorizations", attempt, attempts)
		wrong(rank > planned["authorize"] && attempt != attempts, at+"/attempt", "is %d behind %d authorizations", attempt, attempts)
		wrong(rank > 0 && rank < last, at+"/name", "is %q behind a step that comes later", name)
		last = max(last, rank)
		over := text(step, "status") != "running" && text(step, "status") != "in_doubt" // else it is being sent
		wrong(over && (number(step, "tries") == 0) != (step["started_at"] == nil), at+"/tries", "is %v of a step that was first sent at %v", step["tries"], step["started_at"])
	}
	key := "plan " + orderID
	t := s.facts.things[key]
	if t == nil {
		t = &thing{kind: "plan"}
		s.facts.things[key] = t
	}
	n := min(len(plan), len(t.plan))
	wrong(!slices.Equal(plan[:n], t.plan[:n]), "/body/steps", "are %v, and were planned as %v", plan, t.plan)
	if len(plan) > len(t.plan) {
		t.plan = plan
	}
}
