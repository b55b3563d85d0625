#!/bin/sh
# Copy this node's Ray logs to S3 every minute, until the node ends:
#
#     deploy/aws/keep_logs.sh s3://screening/logs
#
# They are written below s3://screening/logs/<host>/. The last minute of a node may be missing. Logs
# name pictures by URI: use --pseudonymise-uris, or protect the prefix like the archive. Only one copy
# runs per node, however often this is called.
set -eu
place=${1:?where to: s3://bucket/prefix}
logs=${RAY_LOGS:-/tmp/ray/session_latest/logs}
exec 9>"${TMPDIR:-/tmp}/fundus-keep-logs.lock"
flock --nonblock 9 || exit 0
while :; do
    # The real path, because session_latest is a link and links are not followed. A log that grows
    # while it is read is copied again the next time.
    aws s3 sync --quiet --no-follow-symlinks "$(realpath "$logs")" "$place/$(hostname)/" || true
    sleep "${KEEP_LOGS_EVERY:-60}"
done
