{{/* Which Prometheus telemetry is read from: the one named, else the bundled one, else one found in the cluster. */}}
{{- define "fairlane.prometheusUrl" -}}
{{- $named := (.Values.settings.prometheus | default dict).url -}}
{{- if $named -}}
{{ $named }}
{{- else if .Values.bundledPrometheus.enabled -}}
http://fairlane-prometheus:9090
{{- else -}}
{{ get (include "fairlane.foundPrometheus" . | fromJson) "url" }}
{{- end -}}
{{- end }}

{{/* The part whose pods have the extender in them: the only one that asks Prometheus. */}}
{{- define "fairlane.extenderPart" -}}
{{ ternary "controller" "scheduler" (not (empty (include "fairlane.hints" .))) }}
{{- end }}

{{/* Ports of a Prometheus that nothing is known of but its URL; of the others a policy names the pods. */}}
{{- define "fairlane.prometheusAnywhere" -}}
{{- $known := or .Values.bundledPrometheus.enabled (get (include "fairlane.foundPrometheus" . | fromJson) "url") -}}
{{ ternary (list) (include "fairlane.prometheusPorts" . | fromJsonArray) (not (empty $known)) | toJson }}
{{- end }}

{{/*
What was found, as JSON: kind, url, namespace, service, selector and port of its pods; and where it applies: others
(URLs that were passed over), gone (the URL of a former finding), missing (its Service is not there now).
The cluster is asked once a rendering, for every Service: the answer is kept in the values meanwhile.
*/}}
{{- define "fairlane.foundPrometheus" -}}
{{- if not (hasKey .Values "foundPrometheus") -}}
{{- $named := (.Values.settings.prometheus | default dict).url -}}
{{- $wanted := and .Values.prometheusDetection.enabled (not $named) (not .Values.bundledPrometheus.enabled) -}}
{{- $_ := set .Values "foundPrometheus" (ternary (include "fairlane.searchPrometheus" .) "{}" (not (not $wanted))) -}}
{{- end -}}
{{ .Values.foundPrometheus }}
{{- end }}

{{/* A former finding stays as long as its Service is there, so that no upgrade changes it because another one came. */}}
{{- define "fairlane.searchPrometheus" -}}
{{- $candidates := include "fairlane.prometheusCandidates" . | fromJsonArray -}}
{{- $kept := (lookup "v1" "ConfigMap" .Release.Namespace "fairlane-prometheus-found").data | default dict -}}
{{- $former := get $kept "found" | default "{}" | fromJson -}}
{{- $chosen := dict -}}
{{- range $candidates -}}
{{- if eq .url (get $former "url") }}{{ $chosen = . }}{{ end -}}
{{- end -}}
{{- if and (empty $chosen) $candidates -}}
{{- $chosen = first $candidates -}}
{{- with $former }}{{ $_ := set $chosen "gone" .url }}{{ end -}}
{{- end -}}
{{- if empty $chosen -}}
{{- $chosen = $former -}}
{{- if $former }}{{ $_ := set $chosen "missing" true }}{{ end -}}
{{- else -}}
{{- $others := list -}}
{{- range $candidates -}}
{{- /* the operator's own Service leads to the same pods as that of the chart beside it */ -}}
{{- $same := and (eq .namespace $chosen.namespace) (eq .service "prometheus-operated") -}}
{{- if and (ne .url $chosen.url) (not $same) }}{{ $others = append $others .url }}{{ end -}}
{{- end -}}
{{- $_ := set $chosen "others" $others -}}
{{- end -}}
{{ $chosen | toJson }}
{{- end }}

{{/* Every well-known Prometheus of the cluster as JSON, the best first; none where Helm has no cluster to ask. */}}
{{- define "fairlane.prometheusCandidates" -}}
{{- $found := dict -}}
{{- range $service := (lookup "v1" "Service" "" "").items -}}
{{- $kind := include "fairlane.prometheusKind" $service -}}
{{- $port := include "fairlane.prometheusPort" $service | fromJson -}}
{{- /* OpenShift's own answers to its proxies only */ -}}
{{- $usable := and $kind $port.port $service.spec.selector (not (hasPrefix "openshift-" $service.metadata.namespace)) -}}
{{- if $usable -}}
{{- $name := $service.metadata.name -}}
{{- $namespace := $service.metadata.namespace -}}
{{- $labels := $service.metadata.labels | default dict -}}
{{- $one := dict "kind" (substr 2 -1 $kind) "service" $name "namespace" $namespace "selector" $service.spec.selector "port" $port.pods -}}
{{- $_ := set $one "url" (printf "http://%s.%s.svc:%d" $name $namespace (int $port.port)) -}}
{{- with get $labels "release" }}{{ $_ := set $one "release" . }}{{ end -}}
{{- $_ := set $found (printf "%s/%s/%s" $kind $namespace $name) $one -}}
{{- end -}}
{{- end -}}
{{- $sorted := list -}}
{{- range keys $found | sortAlpha }}{{ $sorted = append $sorted (get $found .) }}{{ end -}}
{{ $sorted | toJson }}
{{- end }}

{{/* Whose Service it is, behind a digit that says which is preferred; empty: not a Prometheus that we know. */}}
{{- define "fairlane.prometheusKind" -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $name := get $labels "app.kubernetes.io/name" | default (get $labels "app") -}}
{{- $component := get $labels "app.kubernetes.io/component" | default (get $labels "component") -}}
{{- if eq (get $labels "app") "kube-prometheus-stack-prometheus" -}}
1 kube-prometheus-stack
{{- else if and (eq $name "prometheus") (eq (get $labels "app.kubernetes.io/part-of") "kube-prometheus") (eq $component "prometheus") -}}
2 kube-prometheus
{{- else if and (eq $name "prometheus") (eq $component "server") (hasSuffix "prometheus-server" .metadata.name) -}}
3 the prometheus chart
{{- else if and (eq .metadata.name "prometheus-operated") (eq (get $labels "operated-prometheus") "true") -}}
4 the Prometheus operator
{{- end -}}
{{- end }}

{{/* JSON: its port, and that of the pods behind it. A name of a port is taken to be of the same number there. */}}
{{- define "fairlane.prometheusPort" -}}
{{- $ports := .spec.ports | default list -}}
{{- $chosen := dict -}}
{{- range $ports -}}
{{- if and (empty $chosen) (or (has .name (list "http-web" "web" "http")) (eq (len $ports) 1)) }}{{ $chosen = . }}{{ end -}}
{{- end -}}
{{- if $chosen -}}
{{- $pods := get $chosen "targetPort" | default $chosen.port -}}
{{- dict "port" $chosen.port "pods" (ternary $chosen.port $pods (kindIs "string" $pods)) | toJson -}}
{{- else -}}
{}
{{- end -}}
{{- end }}

{{/* Of a Service whose pods tell of themselves (root, component, ports), for who finds them by annotations; HTTPS is left
out, since he would look at the certificate, which is for API servers. */}}
{{- define "fairlane.scrapeAnnotations" -}}
{{- $value := toString .root.Values.monitoring.scrapeAnnotations -}}
{{- $found := include "fairlane.foundPrometheus" .root | fromJson -}}
{{- $operated := include "fairlane.monitored" (dict "root" .root "value" .root.Values.monitoring.serviceMonitors "kind" "ServiceMonitor") -}}
{{- $wanted := and (eq (get $found "kind") "the prometheus chart") (not $operated) -}}
{{- if and (ne .component "prometheus") (or (eq $value "true") (and (eq $value "auto") $wanted)) -}}
{{- range .ports }}{{ if has .name (list "http" "metrics") -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
{{- end }}{{ end -}}
{{- end -}}
{{- end }}

{{/* What an administrator should know about it; for NOTES.txt. */}}
{{- define "fairlane.prometheusNotes" -}}
{{- $found := include "fairlane.foundPrometheus" . | fromJson -}}
{{- if .Values.bundledPrometheus.enabled }}
Telemetry is read from the bundled Prometheus. It brings no exporters: node_exporter must run on the nodes
{{- if not .Values.probe.enabled }}, and something that measures between them (probe.enabled=true){{ end }}.
{{- else if $found.url }}
{{- if $found.missing }}
The Prometheus found before, {{ $found.url }}, is not there now. It is still used, and nothing is known until it is back.
{{- else }}
Telemetry is read from {{ $found.url }} ({{ $found.kind }}), which was found in the cluster.
{{- end }}
{{- with $found.gone }}
The one found before, {{ . }}, is not there any more.
{{- end }}
{{- with $found.others }}
Passed over: {{ join ", " . }}.
{{- end }}
To choose yourself, set settings.prometheus.url; upgrades keep what was found as long as it is there.
{{- if and $found.release (eq $found.kind "kube-prometheus-stack") (not (hasKey .Values.monitoring.labels "release")) }}
It may look at ServiceMonitors with its own label only: monitoring.labels.release={{ $found.release }}.
{{- end }}
{{- else if not (include "fairlane.prometheusUrl" .) }}
There is no telemetry yet, so placing is left to kube-scheduler. {{ ternary "No Prometheus was found in the cluster: set" "Set" .Values.prometheusDetection.enabled }}
settings.prometheus.url to yours, or bundledPrometheus.enabled=true for a small one of our own.
{{- end }}
{{- end }}
