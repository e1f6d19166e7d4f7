# Python and the project's dependencies (site/, installed on the building machine), as a single layer without
# what only their building needed: symbols alone are a sixth of their size.
ARG BASE
FROM $BASE AS system
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends \
      python3 libgomp1 ca-certificates >/dev/null \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/* /usr/lib/*/gconv \
      /usr/share/doc/* /usr/share/man/* /usr/share/locale/* /usr/share/zoneinfo/*
# by this the unnamed images of these stages are found and taken away (images.py)
LABEL dev.fairlane.stage=build
FROM system AS stripped
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils >/dev/null
COPY site/ /opt/fairlane/site/
# libraries below *.libs were put there by tools whose work strip would spoil; the client of Kubernetes is 1,600
# modules that every process imports: compiled they take a second less each time, and without their sources less room;
# what only a URL of PostgreSQL or S3 leads to is not among what the next image imports, and compiles by that
RUN find /opt/fairlane/site -name '*.so*' -type f -not -path '*.libs/*' -exec strip --strip-unneeded {} + \
 && python3 -m compileall -q -b /opt/fairlane/site/kubernetes \
 && find /opt/fairlane/site/kubernetes -name '*.py' -delete \
 && for part in psycopg sqlalchemy/dialects/postgresql s3fs fsspec aiobotocore botocore aioitertools wrapt jmespath dateutil; do \
      python3 -m compileall -q "/opt/fairlane/site/$part"; done
FROM system AS slim
# nothing is installed into a running container
RUN dpkg --purge --force-depends --force-remove-essential \
      apt libapt-pkg6.0 perl-base e2fsprogs >/dev/null 2>&1
FROM scratch
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --from=slim / /
COPY --from=stripped /opt/fairlane/site /opt/fairlane/site
# sha256 of the file that each distribution was installed from
COPY hashes.json /usr/share/fairlane/hashes.json
