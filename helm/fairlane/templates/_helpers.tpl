{{/* Names are fixed: Fairlane is one for a cluster, and admission knows its controller by name. Those of others are
written by toYaml, since 123 and true are names too. */}}

{{- define "fairlane.selector" -}}
app.kubernetes.io/name: fairlane
app.kubernetes.io/instance: {{ toYaml .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "fairlane.labels" -}}
app.kubernetes.io/name: fairlane
app.kubernetes.io/instance: {{ toYaml .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: fairlane
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* metadata of an object; root, name, and where wanted: component, namespace ("-" for none), annotations, labels */}}
{{- define "fairlane.metadata" -}}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations -}}
metadata:
  name: {{ toYaml .name }}
  {{- if ne (.namespace | default "") "-" }}
  namespace: {{ .namespace | default .root.Release.Namespace | toYaml }}
  {{- end }}
  labels:
    {{- include "fairlane.labels" .root | nindent 4 }}
    {{- with .component }}
    app.kubernetes.io/component: {{ . }}
    {{- end }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "fairlane.annotations" -}}
{{- with .Values.commonAnnotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* root, image (repository, tag, digest), tag: the default one */}}
{{- define "fairlane.image" -}}
{{- $repository := .image.repository -}}
{{- with .root.Values.image.registry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^[^/]*[.:][^/]*/" $repository "") -}}
{{- end -}}
{{- if .image.digest -}}
{{ $repository }}@{{ .image.digest }}
{{- else -}}
{{ $repository }}:{{ .image.tag | default .tag }}
{{- end -}}
{{- end }}

{{- define "fairlane.ownImage" -}}
{{- include "fairlane.image" (dict "root" . "image" .Values.image "tag" .Chart.AppVersion) -}}
{{- end }}

{{/* Managed clusters add words to their versions; images have none of them. */}}
{{- define "fairlane.kubeSchedulerImage" -}}
{{- $version := regexFind "^v[0-9]+\\.[0-9]+\\.[0-9]+" .Capabilities.KubeVersion.Version -}}
{{- include "fairlane.image" (dict "root" . "image" .Values.scheduler.kubeScheduler.image "tag" $version) -}}
{{- end }}

{{/* Text that is not empty where kube-scheduler knows this gate; a later version may have dropped it, and would not start. */}}
{{- define "fairlane.namesNoLoggers" -}}
{{- $version := .Values.scheduler.kubeScheduler.image.tag | default .Capabilities.KubeVersion.Version | regexFind "^v?[0-9]+\\.[0-9]+\\.[0-9]+" -}}
{{- if and $version (semverCompare "<1.38.0" $version) }}yes{{ end -}}
{{- end }}

{{- define "fairlane.tokenSecret" -}}
{{ .Values.token.existingSecret | default "fairlane-token" }}
{{- end }}

{{- define "fairlane.claim" -}}
{{ .Values.storage.existingClaim | default "fairlane-data" }}
{{- end }}

{{/* Text that is not empty where the store, or the registry, is on the volume. */}}
{{- define "fairlane.storeOnVolume" -}}
{{- if not .Values.storage.postgresql.existingSecret }}yes{{ end -}}
{{- end }}
{{- define "fairlane.registryOnVolume" -}}
{{- if and (not .Values.storage.registryUrl) (or .Values.predictor.enabled .Values.train.enabled) }}yes{{ end -}}
{{- end }}

{{- define "fairlane.registry" -}}
{{ .Values.storage.registryUrl | default "/var/lib/fairlane/registry" }}
{{- end }}

{{- define "fairlane.priorityClass" -}}
{{ .Values.priorityClass.name | default "fairlane" }}
{{- end }}

{{- define "fairlane.admissionBy" -}}
{{- $served := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
{{- if ne .Values.admission.by "auto" -}}
{{ .Values.admission.by }}
{{- else -}}
{{ ternary "policies" "webhook" $served }}
{{- end -}}
{{- end }}

{{/* Text that is not empty where objects of the Prometheus operator are wanted; root, value, kind */}}
{{- define "fairlane.monitored" -}}
{{- $known := .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) -}}
{{- if or (eq (toString .value) "true") (and (eq (toString .value) "auto") $known) }}yes{{ end -}}
{{- end }}
