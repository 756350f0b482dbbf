{{/* Secret with the object store's keys. */}}
{{- define "cellsparse.credentials" -}}
{{- .Values.s3.existingSecret | default (printf "%s-store" (include "cellsparse.name" .)) -}}
{{- end }}

{{/* Secret whose ca.crt signs the object store's certificate; empty for the system's authorities. */}}
{{- define "cellsparse.storeCa" -}}
{{- if .Values.minio.enabled }}{{ include "cellsparse.tlsSecret" (dict "root" . "role" "minio") }}{{ else }}{{ .Values.s3.caSecret }}{{ end -}}
{{- end }}

{{/* host:port of the object store. */}}
{{- define "cellsparse.endpoint" -}}
{{- if .Values.minio.enabled }}{{ include "cellsparse.name" . }}-minio.{{ .Release.Namespace }}.svc:9000{{ else }}{{ .Values.s3.endpoint }}{{ end -}}
{{- end }}

{{/* URL of the store's STS, whose credentials training pods get; empty: they get the keys of the Secret. */}}
{{- define "cellsparse.sts" -}}
{{- if .Values.minio.enabled }}{{ ternary "http" "https" (eq .Values.tls.kind "none") }}://{{ include "cellsparse.endpoint" . }}
{{- else }}{{ .Values.s3.sts.endpoint }}
{{- end }}
{{- end }}

{{/* Port of the object store. */}}
{{- define "cellsparse.storePort" -}}
{{- $parts := splitList ":" (include "cellsparse.endpoint" .) -}}
{{- if gt (len $parts) 1 }}{{ last $parts }}{{ else }}{{ ternary 443 80 .Values.s3.secure }}{{ end -}}
{{- end }}

{{/* Variables that say where the object store is, as a YAML map. */}}
{{- define "cellsparse.store" -}}
{{- $minio := .Values.minio.enabled -}}
CELLSPARSE_STORE_URL: {{ printf "s3://%s" .Values.s3.bucket | quote }}
CELLSPARSE_S3_ENDPOINT: {{ include "cellsparse.endpoint" . | quote }}
CELLSPARSE_S3_REGION: {{ .Values.s3.region | quote }}
CELLSPARSE_S3_SECURE: {{ ternary (ne .Values.tls.kind "none") .Values.s3.secure $minio | quote }}
CELLSPARSE_S3_PATH_STYLE: {{ or $minio .Values.s3.pathStyle | quote }}
{{- end }}
