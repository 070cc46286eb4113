# make help lists what a person would type.
SHELL := /bin/bash
.DEFAULT_GOAL := help
TOOL  := go tool -modfile=tools.mod
STACK := go run ./internal/devstack/with --
export CGO_ENABLED := 0

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# GOGC is the compiler's: it takes a sixth less CPU.
.PHONY: build
build: ## build bin/ordergate
	@set -o pipefail; total=; test -x bin/ordergate || { GOPROXY=off go list -deps . >/dev/null 2>&1 || echo "downloading Go modules"; \
	total=" of $$(go list -deps . | wc -l)"; echo "building bin/ordergate, the first time all$${total# of} packages"; }; \
	GOGC=400 GOMEMLIMIT=1GiB go build -v -trimpath -o bin/ordergate . 2>&1 | { n=0; while IFS= read -r line; do case $$line in \
		*' '*) echo "$$line";; \
		*) n=$$((n+1)); [ $$((n % 50)) != 0 ] || echo "  $$n$$total packages are built";; esac; done; } && \
	{ test -z "$$total" || echo "bin/ordergate is built"; }

.PHONY: run
run: ## start everything on this machine; Ctrl-C stops it, data stays
	@sh internal/devstack/install.sh $(MAKE) --no-print-directory build
	@bin/ordergate run

# The packages whose tests take longest begin first: none of them is left alone on two cores in the end.
.PHONY: test
ifneq ($(RUN)$(PKG),)
test:
	@set -o pipefail; out="$$(mktemp)" && trap 'rm -f "$$out"' EXIT && $(STACK) go test -count=1 -run '$(RUN)' $(or $(PKG),./...) | tee "$$out" && \
	{ grep '^ok' "$$out" | grep -qv 'no tests to run' || { echo "no test has a name that matches RUN=$(RUN) in $(or $(PKG),./...)"; exit 1; }; }
else
test: build bench-peers failpoints ts ## all tests, on real PostgreSQL, replicas and Redis; some of them: make test RUN=TestX PKG=./query
	@.ci/libfaketime
	@node="$$(sh web/node.sh)" && export PATH="$$node:$$PATH" && $(STACK) sh -c 'go test ./internal/app ./internal/chaos ./query ./command $$(go list ./... | sed 1d) && go test -count=1 .' && \
	npm --prefix web/lint --silent test && npm --prefix web/ts --silent test && npm --prefix web/console --silent test && npm --prefix web/mock --silent test && npm --prefix web/flows --silent test && \
	URL= KEY= npm --prefix web/flows --silent start && QUICK=1 URL= KEY= node web/generators/run.mjs
endif

.PHONY: unit
unit: ## the tests that need no server
	@go test -short $$(go list ./... | grep -Ev '/internal/(devstack|pgtest)')

# The recorded run sends one request after the other, and takes long under the detector; what the others time means nothing under it.
.PHONY: race
race: ## the tests of what runs concurrently, with the race detector
	@.ci/gcc
	@$(STACK) env CGO_ENABLED=1 go test -race -p 1 -skip '^(TestARecordedRunPassesAndEveryLieIsFound|TestALongHeaderCostsLittle|TestAHerdOnAColdClientLeavesTheBreakerClosed)$$' \
		$(or $(PKG),$(foreach d,command contracttest query internal/bus internal/edge internal/guard internal/rate,./$d/...))

.PHONY: fuzz
fuzz: ## 220,000 bodies and as many parameters, judged by our code and by libraries; other bodies: make fuzz SEED=2
	@go test -count=1 -timeout 1h -v -run '^TestBodiesAreJudgedAsTheLibrariesJudgeThem$$' ./internal/check -bodies 220000 -seed $(or $(SEED),1)
	@go test -count=1 -timeout 1h -v -run '^TestParametersAreTheContract$$' ./internal/edge -parameters 220000

.PHONY: ts
ts: ## build the TypeScript client into gen/ts/dist
	@node="$$(sh web/node.sh)" && PATH="$$node:$$PATH" sh web/ts/build.sh && echo "gen/ts is built, with the Node in $$node"

.PHONY: gen
gen: ## generate everything in gen/ from openapi/, sql/ and web/
	go run ./internal/errgen
	go run ./internal/bundle
	go run ./internal/breaking changelog
	$(TOOL) oapi-codegen -config openapi/api.codegen.yaml gen/api/codegen.json
	go run ./internal/bodygen
	$(TOOL) oapi-codegen -config openapi/psp.codegen.yaml openapi/psp.yaml
	$(TOOL) sqlc generate -f sql/sqlc.yaml
	@node="$$(sh web/node.sh)" && PATH="$$node:$$PATH" sh web/ts/generate.sh && PATH="$$node:$$PATH" npm --prefix web/portal run --silent build && PATH="$$node:$$PATH" npm --prefix web/console run --silent build

.PHONY: check-gen
check-gen: ## regenerate gen/ from nothing and fail on any difference
	rm -rf gen
	$(MAKE) gen
	@test -z "$$(git status --porcelain gen)" || { git status --porcelain gen; git --no-pager diff --stat gen; echo "gen/ is not what the contract, the SQL and web/ give: run make gen and commit"; exit 1; }

.PHONY: screenshots
screenshots: build ## take the pictures of the README anew, into docs/images
	@node="$$(sh web/node.sh)" && PATH="$$node:$$PATH" npm --prefix web/console run --silent screenshots

.PHONY: lint
lint: ## golangci-lint, the layout test and the contract's lint
	$(TOOL) golangci-lint run
	cd bench/peers && go tool -modfile=../../tools.mod golangci-lint run
	@$(MAKE) --no-print-directory test STACK= RUN=TestLayout PKG=.
	@$(MAKE) --no-print-directory breaking
	@node="$$(sh web/node.sh)" && PATH="$$node:$$PATH" npm --prefix web/lint run --silent lint && PATH="$$node:$$PATH" npm --prefix web/flows run --silent lint

.PHONY: tidy
tidy: ## fail unless go.mod, tools.mod and the module of bench/peers list what is used, and no more
	@go mod tidy -diff
	@cd bench/peers && go mod tidy -diff
	@dir="$$(mktemp -d)" && trap 'rm -rf "$$dir"' EXIT && cp tools.mod "$$dir/go.mod" && cp tools.sum "$$dir/go.sum" && cd "$$dir" && go mod tidy -diff

.PHONY: vuln
vuln: ## fail on a known vulnerability that our code reaches
	@out="$$($(TOOL) govulncheck ./... 2>&1)" && status=0 || status=$$?; \
	case "$$status $$out" in *"fetching vulnerabilities"*) echo "The database of vulnerabilities (vuln.go.dev) cannot be reached: nothing was checked."; exit 0;; esac; \
	echo "$$out"; exit $$status

.PHONY: contract
contract: build ## test any address against the contract: make contract URL=http://... KEY=og_... ARGS="--junit report.xml"
	@bin/ordergate contract --url '$(URL)' --key '$(KEY)' $(ARGS)

.PHONY: flows
flows: $(if $(URL),,build) ## run the flows of openapi/flows; ONLY=pay-later: one, URL=... KEY=...: elsewhere
	@node="$$(sh web/node.sh)" && PATH="$$node:$$PATH" ONLY=$(ONLY) URL=$(URL) KEY=$(KEY) npm --prefix web/flows --silent start

.PHONY: mock
mock: ## serve the contract from its examples, without a gateway: make mock PORT=4010
	@node="$$(sh web/node.sh)" && PATH="$$node:$$PATH" PORT=$(or $(PORT),4010) npm --prefix web/mock --silent start

.PHONY: breaking
breaking: ## fail if the contract breaks clients of the newest released one
	@go run ./internal/breaking

.PHONY: changelog
changelog: ## write openapi/CHANGELOG.md, the changes of the contract
	@go run ./internal/breaking changelog

.PHONY: release-contract
release-contract: ## keep the contract in openapi/released/, under its version
	@go run ./internal/breaking release

.PHONY: generators
generators: $(if $(URL),,build) ## make clients with nine generators and run them; QUICK=1: three, ONLY=ogen: one, URL=... KEY=...: elsewhere
	@node="$$(sh web/node.sh)" && PATH="$$node:$$PATH" ONLY=$(ONLY) QUICK=$(QUICK) URL=$(URL) KEY=$(KEY) node web/generators/run.mjs

.PHONY: bench-write
bench-write: check-bench-write build ## print the write path's ratios to limits measured beside them, and write bench/results/; some parts: make bench-write PART=place
	@$(STACK) go run ./bench write $(PART)

.PHONY: bench-read
bench-read: check-bench-read build bench-peers ## the same for the read path; some parts: make bench-read PART=cached
	@$(STACK) go run ./bench read $(PART)

.PHONY: bench-scale
bench-scale: build ## print what an order costs where 10,000,000 are beside one where 10,000 are; needs some 60 GB in TMPDIR, or does it with 3,000,000
	@go run ./bench scale

.PHONY: bench-peers
bench-peers:
	@go build -C bench/peers -trimpath -o ../../bin/bench-peers .

.PHONY: failpoints
failpoints:
	@go build -trimpath -tags failpoints -o bin/ordergate-failpoints .

.PHONY: chaos
chaos: check-chaos build failpoints ## break it on purpose, as often as its promises need; one part: make chaos PART=idempotency
	@.ci/libfaketime
	@$(STACK) go run ./internal/chaos $(PART)

.PHONY: soak
soak: check-soak build ## fail if memory or goroutines grow under a mixed load, in 10 minutes; in others: make soak MINUTES=60
	@MINUTES='$(MINUTES)' go run ./internal/chaos soak

# What a target cannot do is refused before anything is built or started.
.PHONY: check-bench-write check-bench-read check-chaos check-soak
check-bench-write:
	@test -z '$(PART)' || go run ./bench check write $(PART)
check-bench-read:
	@test -z '$(PART)' || go run ./bench check read $(PART)
check-chaos:
	@test -z '$(PART)' || go run ./internal/chaos check $(PART)
check-soak:
	@test -z '$(MINUTES)' || MINUTES='$(MINUTES)' go run ./internal/chaos check soak

.PHONY: clean
clean: ## delete what was built (data stays)
	rm -rf bin gen/ts/dist
