# make help lists what a person would type.
SHELL := /bin/bash
.DEFAULT_GOAL := help
TOOL  := go tool -modfile=tools.mod
STACK := go run ./internal/devstack/with --
export CGO_ENABLED := 0

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## build bin/ordergate
	@set -o pipefail; total=; test -x bin/ordergate || { echo "downloading Go modules"; total=" of $$(go list -deps . | wc -l)"; \
	echo "building bin/ordergate, the first time all$${total# of} packages"; }; \
	go build -v -trimpath -o bin/ordergate . 2>&1 | { n=0; while IFS= read -r line; do case $$line in \
		*' '*) echo "$$line";; \
		*) n=$$((n+1)); [ $$((n % 50)) != 0 ] || echo "  $$n$$total packages are built";; esac; done; }

.PHONY: run
run: ## start everything on this machine; Ctrl-C stops it, data stays
	@sh internal/devstack/install.sh $(MAKE) --no-print-directory build
	@bin/ordergate run

.PHONY: test
test: build ts ## all tests: unit, integration on real PostgreSQL, replica and Redis, end to end with the TypeScript client
	@node="$$(sh web/node.sh)" && export PATH="$$node:$$PATH" && $(STACK) go test ./... && npm --prefix web/ts --silent test

.PHONY: ts
ts: ## build the TypeScript client into gen/ts/dist
	@node="$$(sh web/node.sh)" && PATH="$$node:$$PATH" sh web/ts/build.sh && echo "gen/ts is built, with the Node in $$node"

.PHONY: gen
gen: ## generate everything in gen/ from openapi/, sql/ and web/
	go run ./internal/errgen
	go run ./internal/bundle
	$(TOOL) oapi-codegen -config openapi/api.codegen.yaml gen/api/codegen.json
	$(TOOL) oapi-codegen -config openapi/psp.codegen.yaml openapi/psp.yaml
	$(TOOL) sqlc generate -f sql/sqlc.yaml
	@node="$$(sh web/node.sh)" && PATH="$$node:$$PATH" sh web/ts/generate.sh

.PHONY: check-gen
check-gen: ## regenerate gen/ from nothing and fail on any difference
	rm -rf gen
	$(MAKE) gen
	@test -z "$$(git status --porcelain gen)" || { git status --porcelain gen; git --no-pager diff --stat gen; echo "gen/ is not what the contract, the SQL and web/ give: run make gen and commit"; exit 1; }

.PHONY: lint
lint: ## golangci-lint, the layout test and the contract's lint
	$(TOOL) golangci-lint run
	go test -run TestLayout .
	@node="$$(sh web/node.sh)" && PATH="$$node:$$PATH" npm --prefix web/ts run --silent lint:contract

.PHONY: contract
contract: ## test any address against the contract: make contract URL=http://... KEY=og_...
	@go test -tags contract -count=1 -v -run TestContract ./contracttest -args -url=$(URL) -key=$(KEY)

.PHONY: bench
bench: build ## print ratios against limits measured beside them, and write bench/results/
	@$(STACK) go run ./bench

.PHONY: clean
clean: ## delete what was built (data stays)
	rm -rf bin gen/ts/dist
