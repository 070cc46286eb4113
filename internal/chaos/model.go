package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
)

// explored is a line of the model's test: what was explored, how much, and what was broken.
var explored = regexp.MustCompile(`^ +model_test\.go:\d+: (.+?): (\d+ states, [^:]+)(?:: broken: (.+))?$`)

// model explores the model of the protocol, which is a test of the package command, with more faults in a run than there.
func model(ctx context.Context, c *campaign) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout=30m", "-v", "-run=^TestModel$/"+c.scopes,
		"github.com/ordergate/ordergate/command", "-faults="+strconv.Itoa(c.faults))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	c.progress("model: %d faults in a run, it is built first", c.faults)
	if err = cmd.Start(); err != nil {
		return err
	}
	var rest []byte
	rows, broken := 0, false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line := explored.FindSubmatch(lines.Bytes())
		if line == nil {
			rest = append(append(rest, lines.Bytes()...), '\n')
			continue
		}
		r := row{name: string(line[1]), counts: string(line[2])}
		if len(line[3]) > 0 {
			r.broken, broken = []string{string(line[3])}, true
		}
		c.report(r)
		rows++
	}
	if err = cmd.Wait(); err != nil && !broken {
		return fmt.Errorf("%w\n%s%s", err, rest, &stderr)
	}
	if rows == 0 {
		return errors.New("the test explored nothing")
	}
	return nil
}
