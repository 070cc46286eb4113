package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// render writes the contract's changelog, the newest changes first. It is the same on every day.
func render(releases []*document, contract *document) (string, error) {
	var b strings.Builder
	b.WriteString("# Changes of the contract\n\nWhat a client can notice, operation by operation, from release to release of the contract.\n")
	if len(releases) == 0 {
		fmt.Fprintf(&b, "\nNo version is released yet: this one, %s, may still change in any way, and from the first release on every change is listed here.\n", contract.version)
		return b.String(), nil
	}
	newest := releases[len(releases)-1]
	if !bytes.Equal(newest.text, contract.text) {
		if err := section(&b, "Unreleased", newest, contract); err != nil {
			return "", err
		}
	}
	for i, d := range slices.Backward(releases) {
		if i == 0 {
			fmt.Fprintf(&b, "\n## %s\n\nThe first release: %d operations.\n", d.version, len(d.sunsets)-webhookCount(d))
			break
		}
		if err := section(&b, d.version, releases[i-1], d); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func webhookCount(d *document) (n int) {
	for key := range d.sunsets {
		if strings.HasPrefix(key, "GET "+webhook) {
			n++
		}
	}
	return n
}

// section writes the changes between two contracts by their kind.
func section(b *strings.Builder, title string, before, after *document) error {
	found, err := changes(before, after)
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "\n## %s\n", title)
	if len(found) == 0 {
		b.WriteString("\nWords and examples alone.\n")
	}
	for _, kind := range []string{"added", "changed", "deprecated", "removed"} {
		heading := "\n### " + strings.ToUpper(kind[:1]) + kind[1:] + "\n\n"
		for _, c := range found {
			if c.kind != kind {
				continue
			}
			where, breaks := "The contract", ""
			if c.where != "" {
				where = "`" + c.where + "`"
			}
			if c.breaks {
				breaks = " **This may break clients.**"
			}
			fmt.Fprintf(b, "%s- %s: %s.%s\n", heading, where, c.text, breaks)
			heading = ""
		}
	}
	return nil
}
