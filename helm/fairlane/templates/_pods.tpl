{{/* What all pods have in common; root, component, values (the component's section of the values) */}}

{{/* metadata of a pod template; checksum: what a change of must restart the pods; volume: it mounts the volume */}}
{{- define "fairlane.podMetadata" -}}
labels:
  {{- include "fairlane.selector" (dict "root" .root "component" .component) | nindent 2 }}
  {{- with .volume }}
  fairlane.dev/volume: data
  {{- end }}
  {{- with merge (dict) .values.podLabels .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  checksum/settings: {{ include "fairlane.settings" .root | sha256sum | trunc 16 | toYaml }}
  {{- with .checksum }}
  checksum/config: {{ . | sha256sum | trunc 16 | toYaml }}
  {{- end }}
  {{- with merge (dict) .values.podAnnotations .root.Values.commonAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* the fields of a pod's spec but containers and volumes; token: it talks to the API server */}}
{{- define "fairlane.podSpec" -}}
serviceAccountName: fairlane-{{ .component }}
automountServiceAccountToken: {{ not (not .token) }}
enableServiceLinks: false
priorityClassName: {{ include "fairlane.priorityClass" .root | toYaml }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ toYaml . }}
{{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
{{- with .root.Values.podSecurity.userId }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  fsGroup: {{ int64 . }}
{{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- if .spread }}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "fairlane.selector" (dict "root" .root "component" .component) | nindent 6 }}
- maxSkew: 1
  topologyKey: topology.kubernetes.io/zone
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "fairlane.selector" (dict "root" .root "component" .component) | nindent 6 }}
{{- end }}
# no node of Windows could run them
nodeSelector:
  {{- merge (dict) .values.nodeSelector (dict "kubernetes.io/os" "linux") | toYaml | nindent 2 }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "fairlane.affinity" . }}
{{- end }}

{{/* A volume of one node holds all that mount it together, whoever of them comes first. */}}
{{- define "fairlane.affinity" -}}
{{- $affinity := deepCopy .values.affinity -}}
{{- if and .volume (ne .root.Values.storage.accessMode "ReadWriteMany") -}}
{{- $labels := dict "app.kubernetes.io/instance" .root.Release.Name "fairlane.dev/volume" "data" -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" $labels) -}}
{{- $ours := get $affinity "podAffinity" | default dict -}}
{{- $list := get $ours "requiredDuringSchedulingIgnoredDuringExecution" | default list -}}
{{- $_ := set $ours "requiredDuringSchedulingIgnoredDuringExecution" (append $list $term) -}}
{{- $_ := set $affinity "podAffinity" $ours -}}
{{- end -}}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "fairlane.hardened" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* image, environment and mounts of a container of ours; values: resources, env; bare: without the token; from: a Secret
whose keys are variables */}}
{{- define "fairlane.container" -}}
image: {{ include "fairlane.ownImage" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- include "fairlane.hardened" . | nindent 0 }}
env:
- {name: FAIRLANE_CONFIG, value: /etc/fairlane/fairlane.yaml}
{{- if not .bare }}
- name: FAIRLANE_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ include "fairlane.tokenSecret" .root | toYaml }}, key: {{ toYaml .root.Values.token.key }}}
{{- end }}
{{- with .more }}
{{ . }}
{{- end }}
{{- with .values.env }}
{{ toYaml . }}
{{- end }}
{{- with .from }}
envFrom:
- secretRef: {name: {{ toYaml . }}}
{{- end }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
volumeMounts:
- {name: settings, mountPath: /etc/fairlane, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .volume }}
- {name: data, mountPath: /var/lib/fairlane{{ if eq .volume "read" }}, readOnly: true{{ end }}}
{{- end }}
{{- end }}

{{/* Text that is not empty where the controller writes placement at release, and nobody asks while scheduling. */}}
{{- define "fairlane.hints" -}}
{{- if eq (toString (dig "controller" "placement" "extender" .Values.settings)) "hint" }}yes{{ end -}}
{{- end }}

{{/*
The process that scores nodes, beside the one that asks it: kube-scheduler, or with placement at release the
controller. It listens on the pod's loopback only, so that nobody else can ask it; a kubelet cannot either. When
it hangs, who asks goes on without it until it is started anew.
*/}}
{{- define "fairlane.extender" -}}
- name: extender
  args: [extender]
  ports:
  - {name: metrics, containerPort: 8895}
  livenessProbe:
    httpGet: {path: /healthz, port: metrics}
    initialDelaySeconds: 30
    periodSeconds: 10
    timeoutSeconds: 10
    failureThreshold: 6
  {{- include "fairlane.container" (dict "root" . "component" "scheduler" "values" .Values.scheduler) | nindent 2 }}
  {{- if .Values.scheduler.prometheusSecret }}
  - {name: prometheus, mountPath: /etc/fairlane/prometheus, readOnly: true}
  {{- end }}
  {{- if include "fairlane.predictorTls" . }}
  - {name: certificate, mountPath: /etc/fairlane-certificate, readOnly: true}
  {{- end }}
{{- end }}

{{- define "fairlane.extenderVolumes" -}}
{{- with .Values.scheduler.prometheusSecret }}
- name: prometheus
  secret: {secretName: {{ toYaml . }}}
{{- end }}
{{- if include "fairlane.predictorTls" . }}
# whom to trust; not the key. Optional: without it the prior ranks, and placing goes on
- name: certificate
  secret: {secretName: {{ include "fairlane.predictorSecret" . | toYaml }}, items: [{key: ca.crt, path: ca.crt}], optional: true}
{{- end }}
{{- end }}

{{- define "fairlane.volumes" -}}
volumes:
- name: settings
  configMap: {name: fairlane-settings}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- if .volume }}
- name: data
  persistentVolumeClaim: {claimName: {{ include "fairlane.claim" .root | toYaml }}}
{{- end }}
{{- end }}

{{- define "fairlane.disruption" -}}
{{- if .root.Values.podDisruptionBudgets.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
{{ include "fairlane.metadata" (dict "root" .root "name" (printf "fairlane-%s" .component) "component" .component) }}
spec:
  # at most one at a time; with one replica a drain goes on, and the part is away for a moment
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "fairlane.selector" (dict "root" .root "component" .component) | nindent 6 }}
{{- end }}
{{- end }}

{{- define "fairlane.account" -}}
apiVersion: v1
kind: ServiceAccount
{{ include "fairlane.metadata" (dict "root" .root "name" (printf "fairlane-%s" .component) "component" .component) }}
automountServiceAccountToken: false
{{- end }}

{{/* root, component, ports: [{name, port}], headless, in: the component whose pods serve it, if another; alone: there is one
replica, which is asked also while it is not ready, because it says why */}}
{{- define "fairlane.service" -}}
apiVersion: v1
kind: Service
{{ include "fairlane.metadata" (dict "root" .root "name" (printf "fairlane-%s" .component) "component" .component "annotations" (include "fairlane.scrapeAnnotations" . | fromYaml)) }}
spec:
  {{- if .headless }}
  clusterIP: None
  {{- end }}
  {{- if .alone }}
  publishNotReadyAddresses: true
  {{- end }}
  selector:
    {{- include "fairlane.selector" (dict "root" .root "component" (.in | default .component)) | nindent 4 }}
  ports:
  {{- range .ports }}
  - {name: {{ .name }}, port: {{ .port }}, targetPort: {{ .name }}{{ with .appProtocol }}, appProtocol: {{ . }}{{ end }}}
  {{- end }}
{{- end }}
