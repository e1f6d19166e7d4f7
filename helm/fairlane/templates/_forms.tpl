{{/* files/forms.json says what values must look like; the first that does not ends everything, with a sentence. */}}

{{- define "fairlane.forms" -}}
{{- range $form := .Files.Get "files/forms.json" | fromJsonArray -}}
{{- include "fairlane.formed" (dict "value" $.Values "path" $form.path "at" "" "form" $form) -}}
{{- end -}}
{{- end }}

{{/* value; path: the way from there on, where * is each of a list or map; at: the way so far; form */}}
{{- define "fairlane.formed" -}}
{{- if not .path -}}
{{- include "fairlane.checkForm" . -}}
{{- else if eq (first .path) "*" -}}
{{- if or (kindIs "map" .value) (kindIs "slice" .value) -}}
{{- range $key, $value := .value -}}
{{- include "fairlane.formed" (dict "value" $value "path" (rest $.path) "at" (printf "%s[%v]" $.at $key) "form" $.form) -}}
{{- end -}}
{{- end -}}
{{- else if and (kindIs "map" .value) (or (hasKey .value (first .path)) (eq (len .path) 1)) -}}
{{- /* what is set to null is away, and as good as empty */ -}}
{{- $at := printf "%s.%s" .at (first .path) | trimPrefix "." -}}
{{- if and .form.absent (eq (len .path) 1) -}}
{{- include "fairlane.present" (dict "in" .value "name" (first .path) "at" $at "form" .form) -}}
{{- else -}}
{{- include "fairlane.formed" (dict "value" (get .value (first .path)) "path" (rest .path) "at" $at "form" .form) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* in: the map that name should be in. What is put in is there for all templates: Helm begins with validate.yaml. */}}
{{- define "fairlane.present" -}}
{{- if not (and (hasKey .in .name) (not (kindIs "invalid" (get .in .name)))) -}}
{{- if eq .form.absent "refused" -}}
{{- fail (printf "%s is null or missing: leave it out to have its default, or give it. (`helm upgrade --reuse-values` has no default of a value that is new in this chart; take --reset-then-reuse-values instead.)" .at) -}}
{{- end -}}
{{- $_ := set .in .name (ternary dict list (eq .form.absent "map")) -}}
{{- end -}}
{{- end }}

{{- define "fairlane.checkForm" -}}
{{- $number := or (kindIs "float64" .value) (kindIs "int64" .value) (kindIs "int" .value) -}}
{{- if .form.of -}}
{{- range $key, $_ := kindIs "map" .value | ternary .value dict -}}
{{- if not (regexMatch $.form.pattern $key) -}}
{{- fail (printf "%s has %q, but each key must be %s." $.at $key $.form.must) -}}
{{- end -}}
{{- end -}}
{{- else if and .form.pattern (kindIs "string" .value) -}}
{{- if not (regexMatch .form.pattern .value) -}}
{{- fail (printf "%s is %q, but must be %s." .at .value .form.must) -}}
{{- end -}}
{{- else if and .form.above $number -}}
{{- if le (float64 .value) (float64 .form.above) -}}
{{- fail (printf "%s is %v, but must be %s." .at .value .form.must) -}}
{{- end -}}
{{- end -}}
{{- end }}
