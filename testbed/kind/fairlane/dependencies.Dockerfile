# Python and the project's dependencies (site/, installed on the building machine).
ARG BASE
FROM $BASE
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends \
      python3 libgomp1 ca-certificates >/dev/null \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /usr/share/doc/*
COPY site/ /opt/fairlane/site/
