# `make` alone lists what there is.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 30s
TOOL = go tool -modfile=.ci/tools/go.mod
CI_PROGRAMS = ./.ci/gotest ./.ci/licenses

.PHONY: help run test build lint bench fuzz docs

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## start a small POP3 server and the gateway in front of it, to try
	go run ./cmd/popgate demo

test: ## install what the tests need where possible, then run all of them
	.ci/install-test-deps.sh
	go run ./.ci/gotest -race -timeout 20m ./... $(CI_PROGRAMS)

build: ## build ./popgate, static
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o popgate ./cmd/popgate

lint: ## run the linters
	$(TOOL) golangci-lint run ./...

bench: ## run the benchmarks
	go test -run '^$$' -bench . -benchmem ./...

fuzz: ## run each fuzz target for FUZZTIME (default 30s)
	@set -e; for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

docs: ## write the generated documents anew
	go generate ./...
