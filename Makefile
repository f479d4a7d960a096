# wattfold. `make help` lists what there is; `make ci` is what CI runs, no more
# and no less. Building, running and testing need Go and make and nothing else;
# linting and generating install the tools below into .bin/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

# A bump here reinstalls the tool at its next use. They are installed one by
# one, not as tools of a module: buf wants a newer protobuf than the one whose
# generated code is checked in, and one module could hold only one of the two.
BUF_VERSION := v1.75.0
PROTOC_GEN_GO_VERSION := v1.36.12
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2
GOLANGCI_LINT_VERSION := v2.15.0

BIN := $(CURDIR)/.bin
BUF := $(BIN)/.buf-$(BUF_VERSION)
PROTOC_GEN_GO := $(BIN)/.protoc-gen-go-$(PROTOC_GEN_GO_VERSION)
PROTOC_GEN_GO_GRPC := $(BIN)/.protoc-gen-go-grpc-$(PROTOC_GEN_GO_GRPC_VERSION)
GOLANGCI_LINT := $(BIN)/.golangci-lint-$(GOLANGCI_LINT_VERSION)

# The protos of others that ours import: written out of the modules in go.mod.
THIRD_PARTY := third_party/buf/validate/validate.proto

# Arguments of `make run`, such as ARGS=--no-demo.
ARGS ?=
# Time that `make fuzz` gives to each target.
T ?= 30s
# Runs of each benchmark.
COUNT ?= 5
# The commit that `make breaking` compares the protos with.
BASE ?= HEAD~1

##@ Every day

.PHONY: run
run: ## start everything in one process with the demo: wattfold up
	go build -o bin/wattfold ./cmd/wattfold
	exec bin/wattfold up $(ARGS)

.PHONY: build
build: ## build every package, and the commands into bin/
	go build work
	go build -o bin/ ./cmd/...

.PHONY: test
test: ## run the tests of all three modules
	go test -short work

.PHONY: fmt
fmt: $(BUF) $(GOLANGCI_LINT) ## format Go and protos
	$(BIN)/golangci-lint fmt $$(go list -m -f '{{.Dir}}/...')
	$(BIN)/buf format -w proto

.PHONY: fix
fix: $(GOLANGCI_LINT) ## let the linters repair what they can
	$(BIN)/golangci-lint run --fix $$(go list -m -f '{{.Dir}}/...')

.PHONY: lint
lint: $(BUF) $(GOLANGCI_LINT) $(THIRD_PARTY) ## vet, golangci-lint, buf lint and format
	go vet work
	$(BIN)/golangci-lint run $$(go list -m -f '{{.Dir}}/...')
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code proto

.PHONY: generate
generate: $(BUF) $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC) ## write proto/gen anew
	go run ./internal/thirdparty
	$(BIN)/buf generate

.PHONY: tidy
tidy: ## tidy the three go.mod files
	for dir in $$(go list -m -f '{{.Dir}}'); do go -C "$$dir" mod tidy; done

##@ Longer

.PHONY: race
race: ## run the tests under the race detector
	go test -race -short work

.PHONY: e2e
e2e: ## run real traces through the whole path, against the oracle
	go test -count=1 -timeout=15m ./test/oracle/... ./test/e2e/... ./test/scenarios/...

.PHONY: faults
faults: ## kill, cut, restart and restore; then compare with the oracle
	go test -count=1 -timeout=15m ./test/faults/...

.PHONY: bench
bench: ## run the benchmarks, COUNT times each, in the form that benchstat reads
	go test -run='^$$' -bench=. -benchmem -count=$(COUNT) -timeout=60m work

.PHONY: fuzz
fuzz: ## fuzz every target for T each
	@git grep -E '^func Fuzz\w+\(' -- '*_test.go' | sed -E 's#^(.*)/[^/]+:func (Fuzz\w+)\(.*#\1 \2#' | \
	while read -r dir name; do echo "== $$dir $$name"; go test "./$$dir" -run='^$$' -fuzz="^$$name$$" -fuzztime=$(T); done

##@ CI

.PHONY: ci
ci: generated tidied lint breaking test race e2e faults ## everything that must hold before a change is merged

.PHONY: generated
generated: generate ## fail if proto/gen is not what the protos generate
	git diff --exit-code -- proto/gen
	test -z "$$(git status --porcelain -- proto/gen | tee /dev/stderr)"

.PHONY: tidied
tidied: ## fail if a go.mod is not tidy
	for dir in $$(go list -m -f '{{.Dir}}'); do go -C "$$dir" mod tidy -diff; done

# The protos of others are not in Git, so BASE is unpacked beside a copy of them.
.PHONY: breaking
breaking: $(BUF) $(THIRD_PARTY) ## fail if the protos break callers of BASE
	@if ! git cat-file -e '$(BASE):proto/wattfold' 2>/dev/null; then echo 'no protos in $(BASE): nothing to break'; exit 0; fi; \
	old=$$(mktemp -d); trap 'rm -rf "$$old"' EXIT; git archive '$(BASE)' proto buf.yaml | tar -x -C "$$old"; \
	cp -R third_party "$$old/"; $(BIN)/buf breaking --against "$$old"

##@ Housekeeping

.PHONY: tools
tools: $(BUF) $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC) $(GOLANGCI_LINT) ## install the pinned tools into .bin/

.PHONY: clean
clean: ## remove what was built; data and tools stay
	rm -rf bin third_party

.PHONY: help
help: ## this list
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(THIRD_PARTY): go.mod internal/thirdparty/main.go
	go run ./internal/thirdparty

# An empty file with the version in its name stands for each tool. A binary that
# already is of that version is kept: building all four takes six minutes.
define install
@name='$(1)'; package='$(2)'; version='$(3)'; mkdir -p $(BIN); rm -f "$(BIN)/.$$name"-v*; \
if ! go version -m "$(BIN)/$$name" 2>/dev/null | grep -qF "$$(printf '\t%s\t' "$$version")"; then \
	echo "installing $$name $$version"; GOBIN=$(BIN) GOFLAGS= go install "$$package@$$version"; fi; \
touch $@
endef

$(BUF):
	$(call install,buf,github.com/bufbuild/buf/cmd/buf,$(BUF_VERSION))

$(PROTOC_GEN_GO):
	$(call install,protoc-gen-go,google.golang.org/protobuf/cmd/protoc-gen-go,$(PROTOC_GEN_GO_VERSION))

$(PROTOC_GEN_GO_GRPC):
	$(call install,protoc-gen-go-grpc,google.golang.org/grpc/cmd/protoc-gen-go-grpc,$(PROTOC_GEN_GO_GRPC_VERSION))

$(GOLANGCI_LINT):
	$(call install,golangci-lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint,$(GOLANGCI_LINT_VERSION))
