#!/bin/bash
# join.sh HEAD: make this host part of the cluster of that head, and again whenever it drops out:
# after a reboot (where cron is there), a lost network or a new head. `ray stop` ends it at once. So
# does a head that is away for a quarter of an hour, as after `ray down`, which stops the head alone.
# Ray's own launcher tries a host of one's own once, and never again (2.60).
set -u
head=$1
log=~/plw-join.log

patience_s=900

keep_joined() {
    local last_seen_s=$SECONDS
    while ((SECONDS - last_seen_s < patience_s)); do
        local started_s=$SECONDS
        ~/plw/bin/ray start --address="$head:6379" --block >> "$log" 2>&1 && return
        # Without a head it gives up sooner.
        ((SECONDS - started_s > 180)) && last_seen_s=$SECONDS
        ~/plw/bin/ray stop --force >> "$log" 2>&1
        sleep 5
    done
}

if [ "${2:-}" = --stay ]; then
    export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
    # A busy host takes longer to start an agent or a worker than the half minute that Ray gives it.
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
