#!/bin/bash
# Spark's Kubernetes backend starts a container with "driver ..." or "executor"; PySpark from PyPI
# carries the jars but no program that answers to these words.
set -euo pipefail
classpath="${SPARK_CONF_DIR:+$SPARK_CONF_DIR:}${SPARK_CLASSPATH:+$SPARK_CLASSPATH:}$SPARK_HOME/jars/*"

executor_options() { # SPARK_JAVA_OPT_0, _1, ...: the executor's JVM options, one each
  sort -z -V /proc/self/environ | while IFS= read -r -d '' variable; do
    case $variable in SPARK_JAVA_OPT_*) printf '%s\0' "${variable#*=}" ;; esac
  done
}

case ${1:-} in
driver)
  shift
  exec tini -s -- "$SPARK_HOME/bin/spark-submit" --deploy-mode client \
    --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" \
    --conf "spark.executorEnv.SPARK_DRIVER_POD_IP=$SPARK_DRIVER_BIND_ADDRESS" "$@"
  ;;
executor)
  mapfile -d '' options < <(executor_options)
  exec tini -s -- java "${options[@]}" "-Xms$SPARK_EXECUTOR_MEMORY" "-Xmx$SPARK_EXECUTOR_MEMORY" -cp "$classpath" \
    org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
    --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
    --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
    --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
  ;;
*) exec "$@" ;;
esac
