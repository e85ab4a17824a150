#!/bin/sh
# Make an image of the root file system that rootfs.sh made: import.sh ROOTFS.tar TAG VERSION REVISION
#
# Prints the image's ID. What the image says of itself is what the Dockerfile says; tests/image holds the two together.
set -eu
tar=$1 tag=$2 VERSION=$3 REVISION=$4

exec docker import \
    --change 'ENV PATH=/opt/ipvsproxy/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV LANG=C.UTF-8' \
    --change 'LABEL org.opencontainers.image.title=ipvsproxy' \
    --change 'LABEL org.opencontainers.image.description="Kubernetes Services in the kernel'"'"'s IPVS load balancer"' \
    --change 'LABEL org.opencontainers.image.licenses=Apache-2.0' \
    --change "LABEL org.opencontainers.image.version=$VERSION" \
    --change "LABEL org.opencontainers.image.revision=$REVISION" \
    --change 'ENTRYPOINT ["ipvsproxy"]' \
    "$tar" "$tag"
