#!/usr/bin/env bash
# From one example to a report, as four SLURM jobs that wait for each other: create, train, evaluate, report. Each comes
# back until it is done; if one fails, those behind it are dropped.
#
#   scripts/pipeline.sh [--sbatch=OPTION]... --out DIR [--train WORD]... [--evaluate WORD]... [--report WORD]...
#                       OPTION-OF-CREATE...
#
#   --out DIR        where all of it goes: DIR/run, DIR/trained, DIR/report
#   --train WORD     one more word for `datacreate train`, such as --train --encoder=roberta-large
#   --evaluate WORD  likewise for `datacreate evaluate`, such as --evaluate --benchmark=riddle_sense
#   --report WORD    likewise for `datacreate report`
#
#   scripts/pipeline.sh --out runs/csqa --train --encoder=roberta-large --benchmark csqa --count train
#
# What the jobs ask SLURM for stands in the site settings: `datacreate cluster --help`.
set -euo pipefail

caller=pipeline.sh scripts=$(dirname "$0")
# shellcheck source=scripts/slurm/job.sh
. "$scripts/slurm/job.sh" || exit

out='' common=() create=() train=() evaluate=() report=()
[ $# -gt 0 ] || set -- --help
while [ $# -gt 0 ]; do
    case $1 in
        --out | --train | --evaluate | --report)
            [ -n "${2-}" ] || die "$1 needs a value" 2
            case $1 in
                --out) out=$2 ;;
                --train) train+=("$2") ;;
                --evaluate) evaluate+=("$2") ;;
                --report) report+=("$2") ;;
            esac
            shift
            ;;
        --sbatch=*) common+=("${1#--sbatch=}") ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) create+=("$1") ;;
    esac
    shift
done
[ -n "$out" ] || die "--out is missing: the folder for all of it" 2
create+=(--run-dir "$out/run")
train=("$out/run" --out "$out/trained" "${train[@]}")
evaluate=("$out/trained" "${evaluate[@]}")
report=("$out" --out "$out/report" "${report[@]}")

# All that can be wrong is told before the first is submitted.
(settings create "${create[@]}") && (settings train "${train[@]}") && (settings evaluate "${evaluate[@]}") &&
    (settings report "${report[@]}") || exit

submitted=()
withdraw() {
    [ ${#submitted[@]} -eq 0 ] || scancel "${submitted[@]}"
}
trap withdraw EXIT # a pipeline without its end is none
after() { # after JOB ARGUMENT...: submit it behind the last one
    local job=$1
    shift
    extra=("${common[@]}")
    [ ${#submitted[@]} -eq 0 ] || extra+=(--dependency="afterok:$job_id" --kill-on-invalid-dep=yes)
    settings "$job" "$@"
    submit "$job" -- "$@"
    submitted+=("$job_id")
    tell_submitted "$job"
}
after create "${create[@]}"
after train "${train[@]}"
after evaluate "${evaluate[@]}"
after report "${report[@]}"
trap - EXIT
