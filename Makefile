# Every target that has a comment after ## is shown by `make help`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TOOLS := $(CURDIR)/internal/tools/go.mod
LINT_TOOLS := $(CURDIR)/internal/tools/lint/go.mod
CLANG_FORMAT := clang-format-19

COLLECTOR := _build/otelcol-ebpf/otelcol-ebpf
LEAN_COLLECTOR := _build/otelcol-ebpf-lean/otelcol-ebpf-lean
CONFIG ?= examples/console.yaml

# What a Collector is built from, so that nothing is rebuilt when nothing changed.
SOURCES := go.mod go.sum $(shell find receiver internal -name '*.go' -not -name '*_test.go' -not -path 'internal/tools/*' -o -name '*_bpfel.o')
BPF_SOURCES := $(shell find bpf -name '*.c' -o -name '*.h' -not -path 'bpf/include/bpf/*')

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help
help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: otelcol ## Build the Collector and watch this host on the terminal (CONFIG=file for another configuration)
	@printf '%s\n' \
		"Starting $(COLLECTOR) with $(CONFIG)$(if $(SUDO), (with sudo: loading BPF programs needs root))." \
		"Every connection that ends and every HTTP request is printed below, and metrics every 10 seconds. Try in another terminal:" \
		"  curl -sI http://example.com                    make a connection" \
		"  go run ./cmd/ebpfprofile -html profile.html _build/profiles.json   a flame graph of what the processors were busy with" \
		"  http://localhost:8889/metrics                  the host's TCP metrics, as Prometheus reads them" \
		"  http://localhost:8888/metrics                  the Collector's and the receiver's own metrics" \
		"  http://localhost:55679/debug/pipelinez         the Collector's pipelines" \
		"Ctrl-C stops it; nothing stays attached." ""
	@exec $(SUDO) $(COLLECTOR) --feature-gates=service.profilesSupport --config $(CONFIG)

.PHONY: otelcol
otelcol: $(COLLECTOR) ## Build the Collector distribution _build/otelcol-ebpf/otelcol-ebpf

.PHONY: otelcol-lean
otelcol-lean: $(LEAN_COLLECTOR) ## Build a smaller Collector for tests

$(COLLECTOR) $(LEAN_COLLECTOR): %: %.manifest $(SOURCES)
	@echo "Compiling $@: this takes some minutes the first time."
	cd $(@D) && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o $(@F) .

# ocb writes the main package and lets `go mod tidy` choose versions: needed anew when dependencies change, not sources.
$(COLLECTOR).manifest: builder-config.yaml
$(LEAN_COLLECTOR).manifest: test/builder-lean.yaml
$(COLLECTOR).manifest $(LEAN_COLLECTOR).manifest: go.mod internal/tools/go.mod
	@mkdir -p $(@D)
	go tool -modfile=$(TOOLS) builder --skip-compilation --config $(filter %.yaml,$^)
	@touch $@

# One package at a time: tests of the kernel's timing must not compete with each other.
.PHONY: test
test: ## Run unit and kernel tests; without root only the unit tests
	@if [ "$$(id -u)" != 0 ]; then \
		echo "*** Not root: every test that loads BPF programs is skipped. 'sudo make test' runs them too. ***"; \
	fi
	go build ./...
	go test -count=1 -p 1 $$(go list ./... | grep -v /test/e2e)

# In a module of its own: what drives the browser is not for those who only use the receiver.
.PHONY: flamegraph
flamegraph: ## Test the flame graph of ebpfprofile in Chromium (FLAMEGRAPH_PICTURES=directory keeps pictures of it)
	cd test/flamegraph && go test -count=1 -v ./...

RACE ?= ./receiver/... ./internal/...

.PHONY: race
race: ## Run the tests under the race detector (needs gcc; RACE=packages for some of them)
	CGO_ENABLED=1 go test -count=1 -p 1 -race $(RACE)

.PHONY: e2e
e2e: otelcol ## Run the built Collector against curl, Python, nginx and others (needs root)
	OTELCOL_EBPF=$(CURDIR)/$(COLLECTOR) go test -count=1 -v ./test/e2e/...

.PHONY: bench
bench: ## Measure overhead and throughput (needs root and a quiet machine)
	go run ./bench

.PHONY: doctor
doctor: ## Tell what this host's kernel offers to the receiver
	@go run ./cmd/ebpfreceiver doctor

.PHONY: generate
generate: ## Compile the BPF programs (clang-19) and generate Go code from them and from metadata.yaml
	go generate ./...

# By checksum rather than by `git diff`, so that it can be run on uncommitted work.
GENERATED := find . \( -name '*_bpfel.go' -o -name '*_bpfel.o' -o -name 'generated_*.go' -o -name documentation.md \) -not -path './_build/*' -print0 | sort -z | xargs -0 sha256sum

.PHONY: check-generate
check-generate: ## Fail if generated files are not what `make generate` makes
	@before=$$($(GENERATED)); $(MAKE) --no-print-directory generate; after=$$($(GENERATED)); \
	diff <(echo "$$before") <(echo "$$after") || { echo "Generated files were stale: commit what 'make generate' has made now."; exit 1; }

.PHONY: lint
lint: ## Check the style of Go (golangci-lint) and of C (clang-format)
	go tool -modfile=$(LINT_TOOLS) golangci-lint run ./...
	cd test/flamegraph && go tool -modfile=$(LINT_TOOLS) golangci-lint run ./...
	$(CLANG_FORMAT) --dry-run --Werror $(BPF_SOURCES)

.PHONY: fmt
fmt: ## Format Go and C
	gofmt -w receiver internal cmd bench test
	$(CLANG_FORMAT) -i $(BPF_SOURCES)

.PHONY: cross
cross: ## Check that it builds where it runs (linux/arm64) and where it only says that it does not (windows, darwin)
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go vet ./...
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 go vet ./receiver/... ./cmd/ebpfprofile
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go build -o /dev/null ./receiver/... ./cmd/ebpfprofile

.PHONY: clean
clean: ## Remove what was built
	rm -rf _build
