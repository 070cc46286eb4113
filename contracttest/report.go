package contracttest

import (
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a run (Report.Verdict) and a part of it (PartResult.Result) can end with.
const (
	Passed      = "passed"        // it asked, and found nothing
	Failed      = "failed"        // it has findings
	Skipped     = "skipped"       // of a part: it asked nothing, or not all; Reason says why
	CouldNotRun = "could not run" // of a run: it was ended, or proved nothing; Reason says why
)

// Report is what a run found, and what it covered.
type Report struct {
	URL         string       `json:"url"`
	Contract    string       `json:"contract_version"` // that the suite was built with
	CustomerRef string       `json:"customer_ref"`     // with which those of the run's orders begin
	Seed        uint64       `json:"seed"`
	Only        []string     `json:"only,omitempty"`   // what was chosen
	ToFuzz      int          `json:"requests_to_fuzz"` // that the fuzzing was to send
	Repeat      string       `json:"repeat"`           // flags of `ordergate contract` for the same again, without keys and secrets
	StartedAt   time.Time    `json:"started_at"`
	Seconds     float64      `json:"seconds"`
	Verdict     string       `json:"verdict"` // Passed, Failed or CouldNotRun
	Reason      string       `json:"reason,omitempty"`
	Requests    int          `json:"requests"`
	Orders      int          `json:"orders"` // that the run placed
	Coverage    Coverage     `json:"coverage"`
	Parts       []PartResult `json:"parts"`
	Findings    []Finding    `json:"findings"`
	Hidden      int          `json:"hidden_findings"` // more like those, of the same kind at the same place
	Notes       []string     `json:"notes"`           // that are no findings
	Matrix      []Triple     `json:"matrix"`
}

// Coverage counts what was asked.
type Coverage struct {
	Operations int            `json:"operations"` // that the contract has
	Answered   int            `json:"answered"`   // operations that were answered with a status below 400
	Matrix     map[string]int `json:"matrix"`     // by the state of the triples
	Parameters int            `json:"wrong_parameters"`
	Bodies     int            `json:"wrong_bodies"`
	Bounds     int            `json:"bounds"`
	Fuzzed     int            `json:"fuzzed"`
}

// PartResult is the end of a part.
type PartResult struct {
	Name     string  `json:"name"`
	Result   string  `json:"result"` // Passed, Failed or Skipped
	Reason   string  `json:"reason,omitempty"`
	Requests int     `json:"requests"`
	Findings int     `json:"findings"`
	Seconds  float64 `json:"seconds"`
}

// report is what is known now.
func (s *suite) report(interrupted bool) *Report {
	version, _ := s.contract.at("info", "version").node.(string)
	r := &Report{
		URL: s.BaseURL, Contract: version, CustomerRef: s.ref, Seed: s.Seed, Only: s.Only, ToFuzz: s.Requests, Repeat: s.repeatFlags(), StartedAt: s.begin.UTC(), Seconds: s.now().Sub(s.begin).Seconds(), Verdict: Passed,
		Requests: s.requests, Orders: len(s.orders), Parts: s.results, Findings: s.findings, Hidden: s.hidden, Notes: s.notes(), Matrix: s.matrix(), Coverage: s.coverage,
	}
	r.Coverage.Matrix = map[string]int{}
	answered := map[string]bool{}
	for _, t := range r.Matrix {
		r.Coverage.Matrix[t.State]++
		answered[t.Operation] = answered[t.Operation] || t.State == Proven && t.Status < 400
	}
	for _, yes := range answered {
		if r.Coverage.Operations++; yes {
			r.Coverage.Answered++
		}
	}
	reason := s.reason
	if interrupted && reason == "" {
		reason = errInterrupted.Error()
	}
	switch {
	case len(s.findings) > 0 && (s.began || !s.dead): // they stand, whatever ended the run
		r.Verdict, r.Reason = Failed, reason
	case reason != "":
		r.Verdict, r.Reason = CouldNotRun, reason
	default:
		if why := s.notAsked(); why != "" {
			r.Verdict, r.Reason = CouldNotRun, why
		}
	}
	return r
}

// notAsked says why nothing was proven: a part that was chosen by its name was skipped, or all were. The part "key" proves nothing, unless it was
// chosen. It is empty if something was proven.
func (s *suite) notAsked() string {
	why, proven := "", false
	for _, p := range s.results {
		named := slices.Contains(s.Only, partWord(p.Name))
		switch {
		case p.Result == Skipped && (named || why == ""):
			why = fmt.Sprintf("%s was not tested: %s", p.Name, p.Reason)
			if named {
				return why
			}
		case p.Result != Skipped:
			proven = proven || p.Name != "key" || named
		}
	}
	if proven {
		return ""
	}
	return cmp.Or(why, "no part was chosen")
}

// Code is the status of a process that ends with the report: 0 passed, 1 failed, 2 could not run.
func (r *Report) Code() int {
	switch r.Verdict {
	case Passed:
		return 0
	case Failed:
		return 1
	}
	return 2
}

// Ran tells whether anything was tested, but for the key. If not, there is nothing to tell beside Reason.
func (r *Report) Ran() bool {
	return r.Verdict != CouldNotRun || slices.ContainsFunc(r.Parts, func(p PartResult) bool { return p.Name != "key" && p.Result != Skipped })
}

// fuzzing tells how much was fuzzed, or why nothing was.
func (r *Report) fuzzing() string {
	chosen := len(r.Only) == 0 || slices.ContainsFunc(r.Parts, func(p PartResult) bool { return p.Name == "fuzzing" })
	switch {
	case r.ToFuzz == 0:
		return "nothing: --requests 0"
	case !chosen:
		return "nothing, so that --requests and --seed change nothing: --only leaves it out (--only " + strings.Join(r.Only, ",") + ",fuzzing)"
	}
	return fmt.Sprintf("%d requests were answered", r.Coverage.Fuzzed)
}

// String is ten lines that tell what was covered and what not, the verdict last. Of a run that tested nothing it is the verdict alone.
func (r *Report) String() string {
	ended := map[string]int{}
	var skips []string
	for _, p := range r.Parts {
		if ended[p.Result]++; p.Result != Skipped {
			continue
		}
		if r.Reason != "" && strings.HasSuffix(r.Reason, p.Reason) { // the verdict says it
			skips = append(skips, p.Name)
		} else {
			skips = append(skips, p.Name+" ("+p.Reason+")")
		}
	}
	m := r.Coverage.Matrix
	total := 0
	for _, n := range m {
		total += n
	}
	verdict := map[string]string{Passed: "PASSED", Failed: "FAILED", CouldNotRun: "COULD NOT RUN"}[r.Verdict]
	if r.Reason != "" {
		verdict += ": " + r.Reason
	}
	verdict = "verdict     " + verdict
	if !r.Ran() {
		return verdict
	}
	more := ""
	if r.Hidden > 0 {
		more = fmt.Sprintf(" (and %d more of the same kinds)", r.Hidden)
	}
	return strings.Join([]string{
		fmt.Sprintf("operations  %d of %d were served", r.Coverage.Answered, r.Coverage.Operations),
		fmt.Sprintf("matrix      %d of %d (operation, status, code) proven, %d need faults, %d need another key, %d not proven", m[Proven], total, m[NeedsFaults], m[NeedsKey], m[NotProven]),
		fmt.Sprintf("negatives   %d wrong parameters, %d wrong bodies, each with its code and pointer; %d values on a bound", r.Coverage.Parameters, r.Coverage.Bodies, r.Coverage.Bounds),
		"fuzzing     " + r.fuzzing(),
		fmt.Sprintf("parts       %d passed, %d failed, %d skipped", ended[Passed], ended[Failed], ended[Skipped]),
		"skipped     " + cmp.Or(strings.Join(skips, "; "), "nothing"),
		fmt.Sprintf("findings    %d%s", len(r.Findings), more),
		fmt.Sprintf("sent        %d requests and %d orders in %.0f s, customer_ref %s", r.Requests, r.Orders, r.Seconds, r.CustomerRef),
		"repeat      " + r.Repeat,
		verdict,
	}, "\n")
}

// JSON writes the report for a machine.
func (r *Report) JSON(w io.Writer) error {
	out := *r
	out.Findings, out.Notes = append([]Finding{}, out.Findings...), append([]string{}, out.Notes...) // lists, never null
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(out)
}

type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Skipped  int          `xml:"skipped,attr"`
	Time     string       `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name      string          `xml:"name,attr"`
	Tests     int             `xml:"tests,attr"`
	Failures  int             `xml:"failures,attr"`
	Errors    int             `xml:"errors,attr"`
	Skipped   int             `xml:"skipped,attr"`
	Time      string          `xml:"time,attr"`
	Timestamp string          `xml:"timestamp,attr"`
	Props     []junitProperty `xml:"properties>property,omitempty"`
	Cases     []junitCase     `xml:"testcase"`
	Output    string          `xml:"system-out,omitempty"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	Class   string       `xml:"classname,attr"`
	Name    string       `xml:"name,attr"`
	Time    string       `xml:"time,attr"`
	Failure *junitDetail `xml:"failure,omitempty"`
	Error   *junitDetail `xml:"error,omitempty"`
	Skipped *junitDetail `xml:"skipped,omitempty"`
}

type junitDetail struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes the report as CI systems read it: a test case a part and one for each entry of the matrix, which is skipped if it is not
// proven.
func (r *Report) JUnit(w io.Writer) error {
	at, seconds := r.StartedAt.Format("2006-01-02T15:04:05"), func(s float64) string { return fmt.Sprintf("%.3f", s) }
	parts := junitSuite{Name: "contract", Time: seconds(r.Seconds), Timestamp: at, Output: strings.Join(append(slices.Clone(r.Notes), r.String()), "\n"), Props: []junitProperty{
		{"url", r.URL}, {"seed", strconv.FormatUint(r.Seed, 10)}, {"customer_ref", r.CustomerRef}, {"contract_version", r.Contract},
	}}
	for _, p := range r.Parts {
		c := junitCase{Class: "contract.parts", Name: p.Name, Time: seconds(p.Seconds)}
		var texts []string
		for _, f := range r.Findings {
			if f.Part == p.Name {
				texts = append(texts, f.String())
			}
		}
		switch {
		case p.Result == Skipped:
			c.Skipped = &junitDetail{Message: p.Reason}
			parts.Skipped++
		case len(texts) > 0:
			c.Failure = &junitDetail{Message: texts[0], Text: strings.Join(texts, "\n")}
			parts.Failures++
		}
		parts.Cases = append(parts.Cases, c)
	}
	if r.Verdict == CouldNotRun {
		parts.Cases = append(parts.Cases, junitCase{Class: "contract", Name: "the run", Time: "0.000", Error: &junitDetail{Message: r.Reason}})
		parts.Errors++
	}
	matrix := junitSuite{Name: "matrix", Time: "0.000", Timestamp: at}
	for _, t := range r.Matrix {
		c := junitCase{Class: "contract.matrix." + t.Operation, Name: strings.TrimSpace(fmt.Sprint(t.Status, " ", t.Code)), Time: "0.000"}
		if t.State != Proven {
			c.Skipped = &junitDetail{Message: t.State}
			matrix.Skipped++
		}
		matrix.Cases = append(matrix.Cases, c)
	}
	parts.Tests, matrix.Tests = len(parts.Cases), len(matrix.Cases)
	all := junitSuites{
		Name: "ordergate contract", Tests: parts.Tests + matrix.Tests, Failures: parts.Failures, Skipped: parts.Skipped + matrix.Skipped,
		Time: seconds(r.Seconds), Suites: []junitSuite{parts, matrix},
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
