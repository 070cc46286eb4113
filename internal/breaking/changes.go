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

	from, until time.Time // the days between which it may be released, if there are such
}

// changes lists what differs, operation by operation. It says the same on every day: judge compares with today.
func changes(before, after *document) ([]change, error) {
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
	config := checker.NewConfig(checker.GetAllChecks(), checker.WithSeverityLevels(levels))
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
		if day := after.sunsets[key]; found.breaks && !day.IsZero() {
			found.ending, found.text = true, found.text+" (its sunset is "+day.Format(time.DateOnly)+")"
		}
		all = append(all, found)
	}
	for _, key := range slices.Sorted(maps.Keys(before.sunsets)) {
		if c, differs := sunsetChange(before, after, key); differs {
			all = append(all, c)
		}
	}
	for i := range all {
		all[i].where = strings.Replace(all[i].where, "GET "+webhook, "webhook ", 1)
	}
	slices.SortStableFunc(all, func(a, b change) int { return strings.Compare(a.where+" "+a.text, b.where+" "+b.text) })
	return all, nil
}

// sunsetChange is what became of an operation's sunset, or of the operation itself: it may be removed after the end of a sunset that the old contract
// has, which its clients were told.
func sunsetChange(before, after *document, key string) (c change, differs bool) {
	was := before.sunsets[key]
	day, stays := after.sunsets[key]
	switch {
	case !stays && was.IsZero():
		return change{where: key, kind: "removed", text: "is removed, and the released contract has no sunset of it", breaks: true}, true
	case !stays:
		return change{where: key, kind: "removed", text: "is removed; its sunset is " + was.Format(time.DateOnly), from: was.AddDate(0, 0, 1)}, true
	case day.Equal(was):
		return c, false
	case day.IsZero():
		return change{where: key, kind: "deprecated", text: "its sunset, " + was.Format(time.DateOnly) + ", is taken back"}, true
	}
	c = change{where: key, kind: "deprecated", text: "is deprecated; its sunset is " + day.Format(time.DateOnly)}
	if !was.IsZero() {
		c.text = "its sunset is " + day.Format(time.DateOnly) + " instead of " + was.Format(time.DateOnly)
	}
	if was.IsZero() || day.Before(was) {
		c.until = day.AddDate(0, 0, -minSunset)
	}
	return c, true
}

// judge makes breaking changes of those that may not be released on this day, in UTC.
func judge(all []change, now time.Time) {
	today := now.UTC().Truncate(24 * time.Hour)
	for i, c := range all {
		switch {
		case today.Before(c.from):
			all[i].breaks, all[i].text = true, c.text+", and that day is not over"
		case !c.until.IsZero() && today.After(c.until):
			all[i].breaks, all[i].text = true, c.text+fmt.Sprintf(", which is less than %d days ahead", minSunset)
		}
	}
}

// kindOf sorts a check of oasdiff. What becomes of operations and their sunsets is ours, and no client sees the components or that a version was not raised.
func kindOf(id string) string {
	switch {
	case id == "api-version-not-bumped", id == "api-operation-id-removed", strings.HasPrefix(id, "api-schema-"),
		strings.HasPrefix(id, "api-path-removed-"), strings.HasPrefix(id, "api-removed-"), id == "endpoint-deprecated", id == "endpoint-reactivated":
		return ""
	case strings.HasSuffix(id, "-deprecated"):
		return "deprecated"
	case strings.HasSuffix(id, "-removed"), strings.HasSuffix(id, "-deleted"), strings.HasSuffix(id, "-removed-with-deprecation"):
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
