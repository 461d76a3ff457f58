"""The commands `create` and `preview`: from the plan of a run to its examples.

Modules in reading order:

    loop.py                  the loop: sends requests, commits completions, ends the run
    plan.py                  everything that is decided before the first request
    recipe.py                what a recipe decides: the method, and defaults of options
    run_models.py            the models of a run and their clients
    requests.py              what a request shows and asks for, how many examples, how long the response may be
    pipeline.py              the requests in flight; scoring beside generation
    state.py                 which requests are made; replay of the log
    acceptance.py            what is accepted: from a completion to a commit
    quotas.py                the shares of labels and attributes
    decontamination_sets.py  the sets of `--decontaminate`: benchmarks, files and runs
    run_metrics.py           the metrics of a finished run
"""
