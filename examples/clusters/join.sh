#!/bin/bash
# join.sh HEAD: join this host to the cluster of HEAD, and rejoin after a reboot (if cron is
# installed), a lost network or a new head. It ends at `ray stop`, or after 15 minutes without a head,
# as after `ray down`, which stops only the head. Ray's launcher tries an on-premise host only once
# (2.60).
set -u
head=$1
log=~/plw-join.log

patience_s=900

keep_joined() {
    local last_seen_s=$SECONDS
    while ((SECONDS - last_seen_s < patience_s)); do
        local started_s=$SECONDS
        ~/plw/bin/ray start --address="$head:6379" --block >> "$log" 2>&1 && return
        # A start that lasted longer had found a head; without one, Ray gives up sooner.
        ((SECONDS - started_s > 180)) && last_seen_s=$SECONDS
        ~/plw/bin/ray stop --force >> "$log" 2>&1
        sleep 5
    done
}

if [ "${2:-}" = --stay ]; then
    export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
    # A busy host needs more than Ray's default of 30 s to start an agent or a worker.
    export RAY_agent_register_timeout_ms=300000 RAY_worker_register_timeout_s=300
    export PATH=$HOME/plw/bin:$PATH
    ulimit -n 65536
    keep_joined
    exit
fi
pkill -f -u "$(id -u)" 'plw-join.sh .* --stay'
~/plw/bin/ray stop > /dev/null 2>&1
if command -v crontab > /dev/null; then
    { crontab -l 2> /dev/null | grep -v plw-join.sh; echo "@reboot bash ~/plw-join.sh $head"; } | crontab -
fi
setsid nohup bash ~/plw-join.sh "$head" --stay > /dev/null 2>&1 < /dev/null &
