# Everything that is done to this repository has a target here; `make help` lists them.
GO      ?= go
PYTHON  ?= python3
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)

# How long the page of bench-demo is watched, and how long make chaos kills, in Go's notation.
DURATION ?= 60s
# How long each decoder is fuzzed.
FUZZTIME ?= 5s

# What needs diffusers uses this Python if it is set, else a virtual environment in the per-user cache, made at the first run.
DIFFUSERS_PYTHON ?=
DIFFUSERS_ENVIRONMENT = $(PYTHON) tools/environment.py diffusers tools/requirements-diffusers.txt

.PHONY: help build demo test test-kafka test-browser test-compose test-parity chaos overload fuzz check fmt vet bench-demo bench-prior bench-fold bench-learn onnxruntime clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: onnxruntime ## build bin/rebeca
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/rebeca ./cmd/rebeca

demo: build ## build, then run the demonstration; its page is at http://127.0.0.1:8080
	bin/rebeca demo

test: onnxruntime fmt vet ## run all tests that need nothing outside the process, with the race detector
	$(GO) test -race -shuffle=on -timeout 15m ./...

test-kafka: build ## run the service on a real Apache Kafka (needs Java 17, Maven and kcat)
	$(GO) test -tags kafka -count=1 -timeout 15m -v ./test/kafka
	$(GO) test -tags kafka -count=1 -timeout 15m -run OnApacheKafka -v ./consumer

test-browser: build ## drive the gallery in a headless Chromium (needs chromium)
	$(GO) test -tags browser -count=1 -timeout 10m -v ./test/browser

.PHONY: test-disk
test-disk: onnxruntime ## run the service on a small disk until it is full (needs root, to mount a tmpfs)
	$(GO) test -tags disk -count=1 -timeout 10m -v ./test/disk

test-parity: onnxruntime ## hold the priors in full size against PyTorch, and Stable Diffusion against diffusers (both installed into the per-user cache)
	@python="$(TORCH_PYTHON)"; [ -n "$$python" ] || python=$$($(PYTHON) tools/bench_prior.py prepare) && \
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && "$$python" -B tools/parity/fixtures.py full "$$folder" && \
	PARITY="$$folder" $(GO) test -tags parity -count=1 -timeout 10m -run ParityFull -v ./prior
	@python="$(DIFFUSERS_PYTHON)"; [ -n "$$python" ] || python=$$($(DIFFUSERS_ENVIRONMENT)) && \
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && "$$python" -B tools/stable_diffusion.py fixtures full "$$folder" && \
	PARITY="$$folder" $(GO) test -tags parity -count=1 -timeout 10m -run ParityFull -v ./sampler/stablediffusion

# The weights to export, as diffusers names them, and the folder for ONNX files and manifest; EXPORT has further options of the tool.
MODEL   ?=
ADAPTER ?=
OUT     ?=
EXPORT  ?=
.PHONY: stable-diffusion
stable-diffusion: ## export Stable Diffusion MODEL with the IP-Adapter ADAPTER to OUT, see docs/decoders.md
	@[ -n "$(MODEL)" ] && [ -n "$(ADAPTER)" ] && [ -n "$(OUT)" ] || { echo "make stable-diffusion MODEL=... ADAPTER=... OUT=... (docs/decoders.md)"; exit 2; }
	python="$(DIFFUSERS_PYTHON)"; [ -n "$$python" ] || python=$$($(DIFFUSERS_ENVIRONMENT)) && \
	"$$python" -B tools/stable_diffusion.py export $(EXPORT) "$(MODEL)" "$(ADAPTER)" "$(OUT)"

# make chaos ends after KILLS, or where that is empty after DURATION. SEED repeats a run as far as the machine lets it.
KILLS ?=
SEED  ?=
CHAOS ?= bench/results/chaos.json
chaos: build ## kill service and broker at random, hold all that is there against the log, and add the sums to CHAOS
	$(GO) run ./test/chaos $(if $(KILLS),-kills $(KILLS),-duration $(DURATION)) $(if $(SEED),-seed $(SEED)) $(if $(MOVES),-moves $(MOVES)) -out $(CHAOS)

OVERLOAD_DURATION ?= 10m
overload: build ## send a service ten times what it may fold for OVERLOAD_DURATION, and write figures and memory to bench/results/overload.*
	$(GO) run ./test/overload -duration $(OVERLOAD_DURATION) -out bench/results/overload.json

test-compose: ## hold docker-compose.yml against the Compose Specification, without Docker
	cd tools/compose && $(GO) run . ../../docker-compose.yml

fuzz: onnxruntime ## fuzz every decoder for FUZZTIME each
	@tools/fuzz.sh $(FUZZTIME)

check: test ## what has to hold before a commit: format, vet of every build tag, tests
	$(GO) vet -tags 'kafka browser disk' ./test/... ./consumer
	$(GO) vet -tags parity ./prior ./sampler/stablediffusion

fmt:
	@bad=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); if [ -n "$$bad" ]; then echo "not formatted (run gofmt -w):"; echo "$$bad"; exit 1; fi

vet:
	$(GO) vet -race ./...

bench-demo: build ## run the demonstration for DURATION and write its figures to bench/results/demo.json
	$(GO) run ./bench/demo -duration $(DURATION) -out bench/results/demo.json

# bench-prior and test-parity use this Python if it is set, else one with torch in the per-user cache, installed at the first run.
TORCH_PYTHON ?=
# Blocks of runs of each side of bench-prior, and the file for its figures.
ROUNDS ?= 12
PRIOR_FIGURES ?= bench/results/prior.json
bench-prior: onnxruntime ## measure the learning engine against PyTorch and write PRIOR_FIGURES
	python="$(TORCH_PYTHON)"; [ -n "$$python" ] || python=$$($(PYTHON) tools/bench_prior.py prepare) && \
	$(GO) run ./bench/prior -python "$$python" -rounds $(ROUNDS) -out "$(PRIOR_FIGURES)"

# The file for the figures of bench-sampler.
SAMPLER_FIGURES ?= bench/results/sampler.json
.PHONY: bench-sampler
bench-sampler: onnxruntime ## measure sampling against the published prior's way in PyTorch and against 1,000 steps, and write SAMPLER_FIGURES
	python="$(TORCH_PYTHON)"; [ -n "$$python" ] || python=$$($(PYTHON) tools/bench_prior.py prepare) && \
	$(GO) run ./bench/sampler -python "$$python" -out "$(SAMPLER_FIGURES)"

bench-fold: build ## measure the fold against Kafka Streams on one Apache Kafka (needs Java 17 and Maven) and write bench/results/fold.json
	$(GO) run ./bench/fold -out bench/results/fold.json

# The worlds that bench-learn plays. The figures of demo go to learn.json in LEARN_RESULTS, those of another world to learn-NAME.json.
# LEARN_FLAGS go to `rebeca eval stream`: without --rivals it takes a quarter of the time.
WORLDS ?= demo
LEARN_SEEDS ?= 1,2,3
LEARN_TOGETHER ?= 2
LEARN_FLAGS ?= --rivals
LEARN_RESULTS ?= bench/results
bench-learn: build ## learn each of WORLDS in one pass with three seeds, score what its people are given and write bench/results/learn*.json
	for world in $(WORLDS); do \
	  file=learn-$$world.json; [ $$world != demo ] || file=learn.json; \
	  bin/rebeca eval stream --world $$world --seeds $(LEARN_SEEDS) --together $(LEARN_TOGETHER) \
	    --figures $(LEARN_RESULTS)/$$file $(LEARN_FLAGS) || exit; \
	done

.PHONY: bench-scale
bench-scale: onnxruntime ## measure what an event costs against the number of users, write bench/results/scale.json and plot docs/scale.svg
	$(GO) run ./bench/scale -out bench/results/scale.json -plot docs/scale.svg

onnxruntime: ## fetch the shared library of ONNX Runtime into the per-user cache, once
	@$(PYTHON) tools/onnxruntime.py

clean: ## remove what was built here (the per-user cache stays)
	rm -rf bin
