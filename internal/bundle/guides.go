package main

import (
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The guides are guides/NN-name.md. A guide begins with its title, "# Paging". It links to another by its file, as GitHub does:
// [Paging](06-paging.md#cursors).
var (
	guideFile   = regexp.MustCompile(`^\d\d-([a-z]+(?:-[a-z]+)*)\.md$`)
	heading     = regexp.MustCompile(`^(#{1,4}) (\S.*)$`)
	fence       = regexp.MustCompile("(?ms)^```.*?^```$")
	link        = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	notInAnchor = regexp.MustCompile(`[^\pL\pN _-]`)
)

// guidesAddress is where the portal shows a guide. errorsAddress is where it shows a code.
const guidesAddress, errorsAddress = "/docs/guides/", "/docs/errors/"

// describe appends the guides, in the order of their numbers, to the description of the document. Their headings go one level down, below the
// document's title, and their links to each other become addresses of the portal.
func (b *bundler) describe(doc *yaml.Node) {
	files, _ := fs.Glob(b.dir, "guides/*") // fails only for a malformed pattern
	parts := []string{strings.TrimSpace(text(doc, "info", "description"))}
	for _, file := range files {
		content, err := fs.ReadFile(b.dir, file)
		name := guideFile.FindStringSubmatch(path.Base(file))
		if err != nil || name == nil || !strings.HasPrefix(string(content), "# ") {
			b.faultf("%s: is no guide: its name is NN-name.md, and its first line # and the title", file)
			continue
		}
		b.guides[name[1]] = nil
		parts = append(parts, b.guide(name[1], string(content)))
	}
	if len(files) > 0 {
		set(section(doc, "info"), "description", strings.Join(parts, "\n\n")+"\n")
	}
}

// guide returns the text of a guide as it stands in the document, and notes the anchors of its headings.
func (b *bundler) guide(name, content string) string {
	lines, fenced := slices.DeleteFunc(strings.Split(strings.TrimSpace(content), "\n"), isComment), false
	for i, line := range lines {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		}
		if fenced {
			continue
		}
		if h := heading.FindStringSubmatch(line); h != nil {
			anchor := strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(h[2]), ""), " ", "-")
			if slices.Contains(b.guides[name], anchor) || (h[1] == "#") != (i == 0) {
				b.faultf("guides: %s: the heading %q stands twice, or is a second title", name, h[2])
			}
			b.guides[name] = append(b.guides[name], anchor)
			line = "#" + line
		}
		lines[i] = link.ReplaceAllStringFunc(line, func(found string) string {
			to, anchor, _ := strings.Cut(link.FindStringSubmatch(found)[1], "#")
			file := guideFile.FindStringSubmatch(to)
			switch {
			case file != nil:
				if _, err := fs.Stat(b.dir, "guides/"+to); err != nil {
					b.faultf("guides: %s: there is no %s", name, to)
				}
				to = guidesAddress + file[1]
			case to == "":
				to = guidesAddress + name
			}
			return "](" + strings.TrimSuffix(to+"#"+anchor, "#") + ")"
		})
	}
	return strings.Join(lines, "\n")
}

// isComment tells whether a line is for those who write a guide alone.
func isComment(line string) bool { return strings.HasPrefix(line, "<!--") }

// checkLinks refuses links of a description to guides, headings and codes that there are not, and links that lead nowhere from the document.
func (b *bundler) checkLinks(at, description string) {
	for _, found := range link.FindAllStringSubmatch(fence.ReplaceAllString(description, ""), -1) {
		to, anchor, anchored := strings.Cut(found[1], "#")
		guide, toGuide := strings.CutPrefix(to, guidesAddress)
		code, toCode := strings.CutPrefix(to, errorsAddress)
		anchors, known := b.guides[guide]
		info := get(b.file(registry), "codes", code)
		switch {
		case toGuide && (!known || anchored && !slices.Contains(anchors, anchor)),
			toCode && (info == nil || text(info, "reserved") == "true"),
			!toGuide && !toCode && !strings.HasPrefix(to, "https://") && !slices.Contains([]string{"/docs", "/v1/errors", "/openapi.json", "/openapi.yaml"}, to):
			b.faultf("%s: the link to %s leads nowhere", at, found[1])
		}
	}
}
