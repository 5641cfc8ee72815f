# `make` alone lists the commands. Needs git, make and Python >= 3.11; each command makes the environment it uses.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
SITE := _build/html/index.html
LESSONS := $(sort $(wildcard lessons/*.ipynb lessons/problem_sets/*.ipynb))
export OMP_NUM_THREADS ?= 1

# Time-outs stop what hangs, on a machine that is four times as slow too.
PYTEST := -m pytest -n 2 --dist loadfile -q --timeout 1800 --doctest-modules --nbval-current-env --nbval-cell-timeout 600
# Each makes the libraries compute as on an older processor, and each changes the last digits of something: elementwise
# functions, sums and softmax; products and factorizations; convolutions; numpy.
ISA := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Haswell
# What compares numbers: all but pages, files, texts and the grader.
NUMERIC := flowlib tests $(addprefix --ignore-glob=tests/,site test_demo* test_viz* test_data* test_exercises* test_setup_cell* \
  test_train_[cps]* test_atomic* test_packaging* test_lint* test_architecture* test_reference* test_notebooks* test_instructors* \
  test_your_turn* test_use_with* test_mutants*)

# An environment is good when its last step wrote `installed`. It is made anew when that step is missing, when its
# interpreter is gone, or when the folder was moved (scripts hold the full path); new requirements are added in place.
ENVIRONMENTS := .venv .venv-book .venv-bench .venv-interop .venv-colab
$(foreach env,$(ENVIRONMENTS),$(shell [ "$$(cat $(env)/installed 2>/dev/null)" = "$(CURDIR)" ] \
  && $(env)/bin/python -c '' 2>/dev/null || rm -f $(env)/installed))

.PHONY: help book open test portable lint mutants lessons results results-page bench scaling interop colab repository release clean
help:  ## list the commands
	@sed -n "s,^\([a-z-]*\):.*## \(.*\),make \1\t\2,p" Makefile | expand -t 20

book: .venv-book/installed  ## build the site and print where it is
	$(call build,.venv-book)

open: book  ## build the site and open it in the browser
	@$(PYTHON) -m webbrowser -t "file://$(CURDIR)/$(SITE)"

test: .venv/installed lint  ## everything that is checked: style and types, package, lessons, site
	$(call build,.venv)
	.venv/bin/python $(PYTEST) tests flowlib lessons --nbval -rs --durations 10

portable: .venv/installed  ## numeric tests as other processors compute, change by change; lessons under all of them, and with 2 threads; half an hour
	@check() { echo "$$1"; env $$1 .venv/bin/python $(PYTEST) $(NUMERIC) $$2 || failed="$$failed\n$$1"; }; \
	for change in $(ISA); do check "$$change"; done; \
	for change in "$(ISA)" OMP_NUM_THREADS=2; do check "$$change" "lessons --nbval"; done; \
	[ -z "$$failed" ] || { printf "Not the same everywhere:$$failed\n"; exit 1; }

mutants: .venv/installed  ## change the package line by line and see that the tests notice; half an hour
	.venv/bin/python tests/mutants/run.py

lint: .venv/installed  ## style, types, the workflow file
	.venv/bin/ruff check --quiet .
	.venv/bin/basedpyright --level error
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/ci.yml

lessons: .venv/installed  ## run every lesson again, in place; what still holds stays as it is
	.venv/bin/python book/tools/normalise.py $(LESSONS)
	.venv/bin/python -m flowlib.exercises student lessons/problem_sets book/problem_sets

results: .venv/installed  ## run the rows of the results page again (ROWS="a b": only these)
	.venv/bin/python book/tools/results.py run $(ROWS)

results-page: .venv/installed  ## write the results page from book/results/*.json
	.venv/bin/python book/tools/results.py page

bench: .venv-bench/installed  ## time flowlib against zuko, nflows and normflows
	.venv-bench/bin/python tests/benchmarks/run.py

scaling: .venv-bench/installed  ## how time and memory grow, and what compiling gains
	.venv-bench/bin/python tests/benchmarks/scaling.py

interop: .venv-interop/installed  ## run the scripts of book/use_with.md, with sbi, Pyro, BlackJAX and ArviZ
	.venv-interop/bin/python -m pytest -q -rs tests/test_use_with.py

colab: .venv-colab/installed  ## package and lessons with the versions that Colab has, as another processor computes
	env $(ISA) FIGURES=far .venv-colab/bin/python $(PYTEST) tests/test_laws.py tests/test_exercises_student.py flowlib lessons --nbval \
	  -p no:cacheprovider

repository:  ## URL=https://github.com/you/yours: the public address, wherever it stands; turns on the buttons that lead there
	$(PYTHON) book/tools/setup_cell.py repository "$(URL)"

release:  ## TAG=v1.0: what lessons install in Colab, pinned to the commit of this tag
	$(PYTHON) book/tools/setup_cell.py release "$(TAG)"

clean:  ## remove what was built, the environments too
	rm -rf _build book/results.md book/architecture.md book/reference/*.md $(ENVIRONMENTS)

define build
	@$(1)/bin/python book/tools/api_pages.py flowlib book/reference
	@$(1)/bin/python book/tools/architecture.py flowlib book/architecture.md
	@$(1)/bin/python book/tools/results.py page
	@$(1)/bin/jupyter-book build . --all -q -W --keep-going >/dev/null
	@echo "The site: $(CURDIR)/$(SITE)"
endef

.venv/installed: requirements.txt
.venv-book/installed: requirements-book.txt
.venv-bench/installed: requirements-bench.txt
.venv-interop/installed: requirements.txt requirements-interop.txt
$(filter-out .venv-colab/%,$(ENVIRONMENTS:=/installed)): constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 or newer is needed (make PYTHON=/path/to/python)"; exit 1; }
	[ -e $@ ] || $(PYTHON) -m venv --clear $(@D)
	@rm -f $@
	$(@D)/bin/python -m pip install -q --disable-pip-version-check $(addprefix -r ,$(filter requirements%,$^)) -c constraints.txt
	@echo "$(CURDIR)" > $@

# Colab's versions over those of .venv, from which torch comes: Colab's own build needs a GPU's libraries.
.venv-colab/installed: tests/colab-2026-08.txt .venv/installed
	.venv/bin/python -m venv --clear $(@D)
	.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(echo $(@D)/lib/python3*/site-packages)/rest.pth
	grep -v '^torch==' $< | $(@D)/bin/python -m pip install -q --disable-pip-version-check --ignore-installed -r /dev/stdin
	@echo "$(CURDIR)" > $@
