# shellcheck shell=bash
# The loop of a bash context: waits for "go", evaluates the order, says how it ended.
#
# User code shares this shell, with its options, traps and functions. So what is ours says
# "builtin", hides what it does from `set -x`, and runs with the user's options only while the
# user's code does. It cannot be a function, in which `declare` would make local variables, and
# its lines are part of one line, so that the user's lines are counted from 1. Both branches do the
# same, but the second one begins with the former status in `$?`.
#
# What would end the shell, such as a failing command under `set -e` or an unset variable under
# `set -u`, runs the trap for EXIT. There a forked copy of the shell, which has its whole state,
# takes over and goes on with the loop; the driver ends the original. An interrupt, whose trap
# runs between two commands, ends the code in the same way. Only `exit` really exits.
__headrace_channel=$2 __headrace_order=/dev/fd/$3 __headrace_pid=$BASHPID
__headrace_status=0 __headrace_state=idle __headrace_options= __headrace_on_exit= __headrace_left=
declare -A __headrace_former=()
__headrace_env=() __headrace_cwd= __headrace_code= __headrace_line= __headrace_reason=
__headrace_traps= __headrace_untrapped=() __headrace_last= __headrace_now=
shopt -s expand_aliases

trap() {
    local word action=${1-} rest=()
    if [[ $# -lt 2 || $action == -[lp]* || $BASHPID != "$__headrace_pid" || $__headrace_traps ]]; then
        builtin trap "$@"; builtin return
    fi
    [[ $action != -- ]] || { builtin shift; action=${1-}; }
    for word in "${@:2}"; do
        case ${word^^} in
        0 | EXIT) __headrace_on_exit=${action#-} ;;
        INT | SIGINT | 2)
            __headrace_on_interrupt=$action
            [[ $action != - ]] || __headrace_on_interrupt=$__headrace_interrupt
            builtin trap -- "$__headrace_on_interrupt" INT
            ;;
        DEBUG | RETURN | ERR)
            # A function's end puts back what was taken away inside of it, so the loop does that.
            if [[ $action == - ]]; then __headrace_untrapped+=("$word"); else rest+=("$word"); fi
            ;;
        *) rest+=("$word") ;;
        esac
    done
    [[ ${#rest[@]} -gt 0 ]] || builtin return 0
    builtin trap -- "$action" "${rest[@]}"
}

__headrace_say() { builtin printf '%s\n' "$1" >&"$__headrace_channel"; }

exit() {
    local status=$?
    __headrace_reason=exit
    builtin exit "${@-$status}"
}

__headrace_give_status() { builtin return "$__headrace_status"; }

__headrace_enter() {
    builtin set +eux
    builtin . "$__headrace_order"
    builtin local pair name
    __headrace_former=() __headrace_left= __headrace_reason=
    for pair in "${__headrace_env[@]}"; do
        name=${pair%%=*}
        if [[ -v $name ]]; then __headrace_former[$name]=+${!name}; else __headrace_former[$name]=-; fi
        builtin export "$pair"
    done
    [[ $__headrace_options != *x* ]] || __headrace_code="builtin set -x; $__headrace_code"
    if [[ $__headrace_cwd ]]; then
        __headrace_left=$PWD
        builtin cd -- "$__headrace_cwd"
    fi
}

__headrace_leave() {
    builtin set +eux
    builtin local name
    for name in "${!__headrace_former[@]}"; do
        if [[ ${__headrace_former[$name]} == - ]]; then
            builtin unset -v "$name"
        else
            builtin export "$name=${__headrace_former[$name]:1}"
        fi
    done
    __headrace_former=()
    [[ ! $__headrace_left ]] || builtin cd -- "$__headrace_left"
    __headrace_left=
}

__headrace_report() {
    builtin local status=error
    [[ $__headrace_status != 0 ]] || status=ok
    [[ $__headrace_reason != interrupted ]] || status=interrupted
    __headrace_state=idle
    __headrace_say "{\"type\":\"done\",\"status\":\"$status\",\"exit_code\":$__headrace_status}"
}

# True if the shell is ending though nobody said `exit`. A fatal signal has no status of its own.
__headrace_survives() {
    [[ $BASHPID == "$__headrace_pid" && $__headrace_state == running ]] || builtin return 1
    [[ $__headrace_reason == interrupted ]] || [[ $__headrace_reason != exit && $__headrace_status != 0 ]]
}

# These four become one line each, hence the semicolons: bash counts a user's lines on from ours.
__headrace_at_exit='{ __headrace_status=$? __headrace_options=$-; builtin set +eux; } 2>/dev/null;
[[ $__headrace_reason != interrupted ]] || __headrace_options=$__headrace_now;
if __headrace_survives; then
    builtin trap "" INT;
    __headrace_traps=$(builtin trap -p);
    ( builtin eval "$__headrace_survive" );
    builtin kill -KILL "$BASHPID";
fi;
if [[ $__headrace_on_exit && $BASHPID == "$__headrace_pid" ]]; then
    __headrace_give_status;
    builtin eval "$__headrace_on_exit";
fi'

__headrace_survive='{ __headrace_pid=$BASHPID; builtin eval "$__headrace_traps"; __headrace_traps=;
    builtin trap -- "$__headrace_on_interrupt" INT; } >/dev/null 2>&1;
__headrace_say "{\"type\":\"moved\",\"pid\":$BASHPID}";
{ __headrace_leave; } >/dev/null 2>&1;
if [[ $__headrace_reason == interrupted ]]; then
    [[ ! /dev/fd/2 -ef /dev/null ]] || exec 2>&"$__headrace_stderr";
    exec {__headrace_stderr}>&-;
fi;
__headrace_report;
builtin eval "$__headrace_loop"'

__headrace_loop='while
    {
        __headrace_last=$? __headrace_now=$-; builtin set +eux;
        if [[ $__headrace_state == running ]]; then
            __headrace_status=$__headrace_last __headrace_options=$__headrace_now;
            [[ ${#__headrace_untrapped[@]} -eq 0 ]] || builtin trap - "${__headrace_untrapped[@]}";
            __headrace_untrapped=();
            __headrace_leave; __headrace_report;
        fi;
    } >/dev/null 2>&1;
    { builtin read -r -u "$__headrace_channel" __headrace_line || [[ $? -gt 128 ]]; } >/dev/null 2>&1;
do
    if
        {
            [[ $__headrace_line == go ]] || builtin continue;
            __headrace_line=; __headrace_enter;
            __headrace_state=running;
            __headrace_say "{\"type\":\"begun\"}";
            [[ $__headrace_options != *u* ]] || builtin set -u;
            [[ $__headrace_options != *e* ]] || builtin set -e;
            __headrace_give_status;
        } >/dev/null 2>&1;
    then
        builtin eval "$__headrace_code";
    else
        builtin eval "$__headrace_code";
    fi;
done;
if [[ $__headrace_state == running ]]; then builtin eval "$__headrace_loop"; fi'

# The first way out leaves functions, and their local variables, behind, and complains of that on
# stderr. Where it is closed, as in a condition, the second one does not.
__headrace_interrupt='if [[ $BASHPID == "$__headrace_pid" && $__headrace_state == running && ! $__headrace_reason ]]; then
    __headrace_reason=interrupted __headrace_now=$- __headrace_status=130;
    exec {__headrace_stderr}>&2 2>/dev/null;
    builtin set -e;
    __headrace_give_status;
    builtin exit 130;
fi'

__headrace_at_exit=${__headrace_at_exit//$'\n'/ }
__headrace_survive=${__headrace_survive//$'\n'/ }
__headrace_interrupt=${__headrace_interrupt//$'\n'/ }
__headrace_loop=${__headrace_loop//$'\n'/ }
builtin trap "$__headrace_at_exit" EXIT
__headrace_on_interrupt=$__headrace_interrupt
builtin trap "$__headrace_interrupt" INT
