package main

import (
	"io/fs"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// webhooksFile has an entry for each type of event: its schema and an example of what is its own of the event. A folder without it has no events.
const webhooksFile = "webhooks.yaml"

var firstLetter = regexp.MustCompile(`_.`)

// exampleResources are the resources of the examples, by the first word of the type.
var exampleResources = map[string]string{
	"order": "ord_0198f3c2a4b57d3e8c1f2a3b4c5d6e7f", "payment": "pay_0198f3c2a4b57d3e8c1f2a3b4c5d6e90", "refund": "ref_0198f3c2a4b57d3e8c1f2a3b4c5d6ea0",
	"shipment": "shp_0198f3c2a4b57d3e8c1f2a3b4c5d6eb0", "inventory": "LAMP-0001",
}

// mergeWebhooks adds a webhook for each type of event.
func (b *bundler) mergeWebhooks(doc *yaml.Node) {
	if _, err := fs.Stat(b.dir, webhooksFile); err != nil {
		return
	}
	webhooks := section(doc, "webhooks")
	for eventType, entry := range pairs(b.file(webhooksFile)) {
		b.used[webhooksFile+"#/"+eventType] = true
		schema, event, data := b.component(root, text(entry, "schema")), get(entry, "event"), get(entry, "data")
		kind, what, _ := strings.Cut(eventType, ".")
		if data == nil || event == nil || exampleResources[kind] == "" {
			b.faultf("%s: %s needs event and data, and a resource in exampleResources of internal/bundle", webhooksFile, eventType)
			continue
		}
		cause := mapping("trace_id", "checkout-7c9e6679", "operation", get(event, "operation"), "actor", get(event, "actor"))
		example := mapping("id", "evt_0198f3c2a4b57d3e8c1f2a3b4c5d6e80", "type", eventType, "sequence", get(event, "sequence"), "resource", exampleResources[kind],
			"schema_version", get(event, "schema_version"), "created_at", "2026-11-23T06:00:00.000000Z", "cause", cause, "data", data)
		name := firstLetter.ReplaceAllStringFunc("on_"+kind+"_"+what, func(s string) string { return strings.ToUpper(s[1:]) })
		_, described := b.target(root, text(entry, "schema"))
		description := text(described, "description") + " It is not sent yet: [events, streams and webhooks](" + guidesAddress + "events#webhooks)."
		set(webhooks, eventType, mapping("post", mapping("operationId", name, "tags", []string{"Webhooks"}, "summary", eventType, "description", description, "security", []*yaml.Node{},
			"requestBody", mapping("required", true, "content", mapping("application/json", mapping("schema", ref(schema), "example", example))),
			"responses", mapping("204", mapping("description", "You have taken it.")))))
	}
}
