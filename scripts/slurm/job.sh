#!/usr/bin/env bash
# What the scripts for SLURM share. Each of them is a command, which submits itself with the site's settings
# (`datacreate cluster --help`), and the job's own script, which runs one verb and comes back when that was stopped.
#
# A script sources this after setting `scripts`, the folder it lies in.

: "${scripts:?}"
resumable=75 # the verbs' exit code for: stopped, run me again

die() { # die MESSAGE [CODE]
    printf '%s: %s\n' "${caller:-slurm}" "$1" >&2
    exit "${2:-1}"
}

in_job() { [ "${0##*/}" = slurm_script ]; } # what SLURM calls its copy of a script

usage() { sed -n '2,/^set /{/^#SBATCH/d;/^set /d;s/^# \{0,1\}//;p;}' "$0"; }

find_datacreate() { # sets datacreate: the command on PATH, or that of the environment beside the scripts
    datacreate=$(command -v datacreate) || datacreate=$(realpath -ms "$scripts/../.venv/bin/datacreate")
    [ -x "$datacreate" ] ||
        die "there is no datacreate on the PATH, and none made by scripts/setup: run that, or activate its environment"
}

# --- As a command: submit -----------------------------------------------------------------------------------

extra=() arguments=()
split_arguments() { # split_arguments [--sbatch=OPTION]... ARGUMENT...: sets extra (sbatch's) and arguments (the verb's)
    local word
    extra=() arguments=()
    [ $# -gt 0 ] || {
        usage >&2
        exit 2
    }
    for word in "$@"; do
        case $word in
            -h | --help)
                usage
                exit 0
                ;;
            --sbatch=*) extra+=("${word#--sbatch=}") ;;
            *) arguments+=("$word") ;;
        esac
    done
}

# What `datacreate cluster options` tells.
options=() logs='' max_array=''
settings() { # settings JOB ARGUMENT...: read them, and have the arguments checked
    local told job=$1
    shift
    find_datacreate
    told=$("$datacreate" cluster options "$job" -- "$@") || exit
    eval "$told"
}

job_id='' job_log=''
submit() { # submit JOB [INDICES] -- ARGUMENT...: queue it, with extra; after `settings JOB`; sets job_id and job_log
    local job=$1 indices='' said name=%x-%j
    shift
    [ "$1" = -- ] || {
        indices=$1 name=%x-%A_%a
        extra+=(--array="$indices${max_array:+%$max_array}")
        shift
    }
    shift
    command -v sbatch >/dev/null || die "there is no sbatch here: submit where SLURM is, on a login node"
    mkdir -p "$logs" || die "$logs: the folder for the jobs' output cannot be made; set logs in the site settings"
    DATACREATE_SCRIPTS=$(realpath -s "$scripts")
    export DATACREATE_SCRIPTS
    unset "${!SLURM_ARRAY_@}" SLURM_RESTART_COUNT # of the job that we may be in ourselves
    options+=("${extra[@]}")
    said=$(sbatch --parsable --output="$logs/$name.log" "${options[@]}" "$scripts/$job.sbatch" "$@" 2>&1) || {
        said=${said##*$'\n'}
        die "SLURM does not take the job: ${said#sbatch: *: }; what was asked for: \`datacreate cluster show\`"
    }
    job_id=$(grep -Eom 1 '^[0-9]+' <<<"$said")
    name=${name//%x/$job} name=${name//%[jA]/$job_id}
    job_log=$logs/${name//%a/*}.log
}

submit_alone() { # submit_alone JOB [--sbatch=OPTION]... ARGUMENT...: one job, and a line on it
    local job=$1
    shift
    split_arguments "$@"
    settings "$job" "${arguments[@]}"
    submit "$job" -- "${arguments[@]}"
    tell_submitted "$job"
}

tell_submitted() { printf 'submitted %s as job %s; its log: %s\n' "$1" "$job_id" "$job_log"; }

# --- As a job: run, and come back ---------------------------------------------------------------------------

# The number of a task's job may be that of its whole array: only this names the task alone.
job_name() {
    local task=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
    printf '%s' "${task:-$SLURM_JOB_ID}"
}

note() { printf '%s  job %s: %s\n' "$(date '+%Y-%m-%d %H:%M:%S')" "$(job_name)" "$1"; }

run() { # run VERB ARGUMENT...: `datacreate VERB` to its end, which is the job's, or until it comes back
    local code child='' stopped=false again container=()
    # The child may be gone: at the time limit itself SLURM signals every process.
    trap 'stopped=true again=true; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || :' TERM
    # What a site's modules say is not written for these.
    set +eu
    eval "${DATACREATE_SETUP-}"
    set -eu
    eval "container=(${DATACREATE_CONTAINER-})"
    if [ ${#container[@]} -gt 0 ]; then container+=(datacreate); else find_datacreate && container=("$datacreate"); fi
    note "start $((${SLURM_RESTART_COUNT:-0} + 1)) on ${SLURMD_NODENAME:-$(hostname)}: datacreate $*"
    "${container[@]}" "$@" &
    child=$!
    ! $stopped || kill -TERM "$child" 2>/dev/null || :
    while :; do # a signal ends bash's wait, and not the child
        again=false code=0
        wait "$child" || code=$?
        $again || break
    done
    # Told to stop: too early for it to be caught (143), or bash has lost how it ended (-1, 127).
    if $stopped && [[ $code != [012] ]]; then code=$resumable; fi
    [ "$code" != $resumable ] || come_back
    note "ended with exit code $code"
    exit "$code"
}

come_back() { # ask SLURM to start this job again; it returns where that is not to be
    local restarts=${SLURM_RESTART_COUNT:-0} state pause
    # SLURM is ending it already: cancelled, or put back by SLURM itself, unless the time limit was reached.
    state=$(scontrol --oneliner show job "$(job_name)" 2>/dev/null) || state=''
    case $state in
        *' Reason=TimeLimit '*) ;;
        *' JobState=COMPLETING '* | *' JobState=CANCELLED '*)
            note "ended by SLURM; if it does not come back by itself, submit the same command again"
            return
            ;;
    esac
    if [ "$restarts" -ge "${DATACREATE_RESTARTS:-50}" ]; then
        note "came back $restarts times and is not done: given up; see why above, then submit the same command again"
        return
    fi
    note "stopped, and comes back"
    for pause in 0 5 15 30; do # while SLURM is too busy to answer
        sleep "$pause"
        ! scontrol requeue "$(job_name)" || exit $resumable
    done
    note "SLURM does not take it back (see above); submit the same command again to go on"
}
