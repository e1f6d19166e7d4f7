{{/* What Kubernetes lets nobody change of a claim that is there is refused before anything else of an upgrade was done. */}}
{{- define "fairlane.volumesStay" -}}
{{- $storage := .Values.storage -}}
{{- if and (or (include "fairlane.storeOnVolume" .) (include "fairlane.registryOnVolume" .)) (not $storage.existingClaim) -}}
{{- include "fairlane.volumeStays" (dict "root" . "name" "fairlane-data" "of" "storage" "wanted" $storage "way" "make a claim of your own, copy what is on this one, and name it in storage.existingClaim") -}}
{{- end -}}
{{- with .Values.bundledPrometheus -}}
{{- if and .enabled .storage.persistent -}}
{{- include "fairlane.volumeStays" (dict "root" $ "name" "fairlane-prometheus" "of" "bundledPrometheus.storage" "wanted" .storage "way" "delete the claim first; its history is lost") -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "fairlane.volumeStays" -}}
{{- $claim := lookup "v1" "PersistentVolumeClaim" .root.Release.Namespace .name -}}
{{- if $claim -}}
{{- $class := $claim.spec.storageClassName | default "" -}}
{{- $mode := first $claim.spec.accessModes -}}
{{- $has := $claim.spec.resources.requests.storage -}}
{{- if and .wanted.storageClass (ne (toString .wanted.storageClass) $class) -}}
{{- fail (printf "%s.storageClass is %v, but the claim %s is there with %q, which Kubernetes lets nobody change: %s." .of .wanted.storageClass .name $class .way) -}}
{{- end -}}
{{- if and .wanted.accessMode (ne .wanted.accessMode $mode) -}}
{{- fail (printf "%s.accessMode is %s, but the claim %s is there with %s, which Kubernetes lets nobody change: %s." .of .wanted.accessMode .name $mode .way) -}}
{{- end -}}
{{- if lt (include "fairlane.bytes" .wanted.size | int64) (include "fairlane.bytes" $has | int64) -}}
{{- fail (printf "%s.size is %s, but the claim %s is there with %s, and no volume shrinks: set it to that." .of .wanted.size .name $has) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* 0 of a quantity with a fraction or an unusual unit, which is compared with nothing */}}
{{- define "fairlane.bytes" -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexReplaceAll "^[0-9]+" . "" -}}
{{- if hasKey $units $unit -}}
{{ mul (regexFind "^[0-9]+" . | int64) (get $units $unit) }}
{{- else -}}
0
{{- end -}}
{{- end }}
