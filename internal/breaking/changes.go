package main

import (
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/oasdiff/oasdiff/checker"
	"github.com/oasdiff/oasdiff/diff"
)

// minSunset is how long, in days, an operation is announced to go before it may: openapi/guides/16-versioning.md.
const minSunset = 180

// severities has a line for each check of oasdiff whose level is another one here: its id, a level, and why.
//
//go:embed severity.txt
var severities string

// change is a difference between two contracts that a client can notice.
type change struct {
	where  string // GET /v1/orders, webhook order.paid, or "" for the contract as a whole
	kind   string // added, changed, deprecated, removed
	text   string
	breaks bool // a client that follows the old contract may fail by the new one
	ending bool // which is allowed: the operation carries a sunset
}

// changes lists what differs, operation by operation. An operation may be removed after the end of a sunset that the old contract has, which its
// clients were told.
func changes(before, after *document, now time.Time) ([]change, error) {
	levels := map[string]checker.Level{}
	for line := range strings.Lines(severities) {
		fields := strings.Fields(line)
		if len(fields) < 3 || line[0] == '#' {
			continue
		}
		level, err := checker.NewLevel(fields[1])
		if err != nil {
			return nil, fmt.Errorf("severity.txt: %w", err)
		}
		levels[fields[0]] = level
	}
	difference, sources, err := diff.GetWithOperationsSourcesMap(diff.NewConfig(), before.spec, after.spec)
	if err != nil {
		return nil, err
	}
	config := checker.NewConfig(checker.GetAllChecks(), checker.WithSeverityLevels(levels), checker.WithDeprecation(minSunset, minSunset))
	var all []change
	seen := map[string]bool{}
	localizer := checker.NewDefaultLocalizer()
	for _, c := range checker.CheckBackwardCompatibilityUntilLevel(config, difference, sources, checker.INFO) {
		key := strings.TrimSpace(c.GetOperation() + " " + c.GetPath())
		found := change{where: key, kind: kindOf(c.GetId()), text: worded(c.GetUncolorizedText(localizer)), breaks: c.GetLevel() >= checker.WARN}
		if found.kind == "" || seen[found.where+found.text] {
			continue
		}
		seen[found.where+found.text] = true
		if day, announced := sunset(after.operations[key]); found.breaks && announced && !strings.HasPrefix(c.GetId(), "api-") {
			found.ending, found.text = true, found.text+" (its sunset is "+day.Format(time.DateOnly)+")"
		}
		all = append(all, found)
	}
	for _, key := range slices.Sorted(maps.Keys(before.operations)) {
		if after.operations[key] != nil {
			continue
		}
		day, announced := sunset(before.operations[key])
		switch {
		case !announced:
			all = append(all, change{where: key, kind: "removed", text: "is removed, and the released contract has no sunset of it", breaks: true})
		case !isPast(day, now):
			all = append(all, change{where: key, kind: "removed", text: "is removed before the end of its sunset, " + day.Format(time.DateOnly), breaks: true})
		default:
			all = append(all, change{where: key, kind: "removed", text: "is removed after its sunset, " + day.Format(time.DateOnly)})
		}
	}
	for i := range all {
		all[i].where = strings.Replace(all[i].where, "GET "+webhook, "webhook ", 1)
	}
	slices.SortStableFunc(all, func(a, b change) int { return strings.Compare(a.where+" "+a.text, b.where+" "+b.text) })
	return all, nil
}

// sunset returns the last day of an operation that is deprecated.
func sunset(op map[string]any) (day time.Time, announced bool) {
	if op["deprecated"] != true {
		return day, false
	}
	text, _ := op["x-sunset"].(string)
	day, err := time.Parse(time.DateOnly, text)
	return day, err == nil
}

// isPast tells whether a day is over, in UTC.
func isPast(day, now time.Time) bool { return !now.Before(day.AddDate(0, 0, 1)) }

// kindOf sorts a check of oasdiff. Operations that are removed are ours, and no client sees the components or that a version was not raised.
func kindOf(id string) string {
	switch {
	case id == "api-version-not-bumped", id == "api-operation-id-removed", strings.HasPrefix(id, "api-schema-"),
		strings.HasPrefix(id, "api-path-removed-"), strings.HasPrefix(id, "api-removed-"), strings.HasPrefix(id, "api-path-sunset-"):
		return ""
	case strings.Contains(id, "deprecated"), strings.Contains(id, "sunset"):
		return "deprecated"
	case strings.HasSuffix(id, "-removed"), strings.HasSuffix(id, "-deleted"):
		return "removed"
	case strings.HasSuffix(id, "-added"):
		return "added"
	}
	return "changed"
}

var (
	code    = regexp.MustCompile("^(added|removed) the required property `([A-Z]+_\\d{3})` (?:to|from) the response with the `(\\d{3})` status$")
	subpart = regexp.MustCompile(`/?(allOf|oneOf|anyOf)\[[^\]]*\]`)
)

// worded puts what oasdiff says of our form of a contract into words about the contract itself.
func worded(text string) string {
	text = strings.NewReplacer("`/", "`").Replace(subpart.ReplaceAllString(text, ""))
	if m := code.FindStringSubmatch(text); m != nil && m[1] == "added" {
		return "may be refused with `" + m[2] + "` (" + m[3] + ")"
	} else if m != nil {
		return "is no longer refused with `" + m[2] + "` (" + m[3] + ")"
	}
	return text
}
