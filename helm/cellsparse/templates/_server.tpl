{{/* Environment of one of our servers: dict "root" "environment" "role"; without a role, of a program that serves nothing. */}}
{{- define "cellsparse.env" -}}
{{- $environment := merge (dict) .environment (include "cellsparse.store" .root | fromYaml) (include "cellsparse.tlsEnvironment" . | fromYaml) (include "cellsparse.tracing" .root | fromYaml) }}
{{- $_ := set $environment "CELLSPARSE_SECRETS_DIR" "/run/cellsparse/credentials" }}
{{- $_ := set $environment "CELLSPARSE_METRICS_PORT" "9090" }}
{{- if include "cellsparse.storeCa" .root }}
{{- $_ := set $environment "CELLSPARSE_S3_CA_BUNDLE" "/run/cellsparse/ca/ca.crt" }}
{{- end }}
{{- if not (hasKey $environment "CELLSPARSE_HOST") }}
- name: CELLSPARSE_HOST
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end }}
{{- range $name, $value := $environment }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{/* Mounts of one of our servers: dict "root" "role", as for its environment. */}}
{{- define "cellsparse.mounts" -}}
- {name: scratch, mountPath: /tmp}
- {name: credentials, mountPath: /run/cellsparse/credentials, readOnly: true}
{{- if include "cellsparse.storeCa" .root }}
- {name: ca, mountPath: /run/cellsparse/ca, readOnly: true}
{{- end }}
{{- if include "cellsparse.tlsSecret" . }}
- {name: tls, mountPath: /run/cellsparse/tls, readOnly: true}
{{- end }}
{{- end }}

{{/* Volumes of one of our servers: dict "root", "role", "database" (whether it gets the database's URL, too), and "admin" (whether
     it gets the administrator's token). */}}
{{- define "cellsparse.volumes" -}}
- name: scratch
  emptyDir: {}
# Files whose names are settings: see CELLSPARSE_SECRETS_DIR.
- name: credentials
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "cellsparse.credentials" .root }}
          items:
            - {key: accessKey, path: cellsparse_s3_access_key}
            - {key: secretKey, path: cellsparse_s3_secret_key}
      {{- if .database }}
      - secret:
          name: {{ include "cellsparse.databaseSecret" .root }}
          items: [{key: url, path: cellsparse_database_url}]
      {{- end }}
      {{- with and .admin (include "cellsparse.authSecret" .root) }}
      - secret:
          name: {{ . }}
          items: [{key: token, path: cellsparse_admin_token}]
      {{- end }}
{{- with include "cellsparse.storeCa" .root }}
- name: ca
  secret: {secretName: {{ . }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- with include "cellsparse.tlsSecret" . }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{/* Secret with the database's URL; empty for SQLite. */}}
{{- define "cellsparse.databaseSecret" -}}
{{- if eq .Values.database.kind "external" }}{{ .Values.database.existingSecret }}
{{- else if eq .Values.database.kind "postgresql" }}{{ include "cellsparse.name" . }}-database
{{- end }}
{{- end }}

{{/* Secret with an administrator's token; empty without authentication. */}}
{{- define "cellsparse.authSecret" -}}
{{- if eq .Values.auth.kind "tokens" }}{{ .Values.auth.existingSecret | default (printf "%s-admin" (include "cellsparse.name" .)) }}{{ end }}
{{- end }}

{{/* Roles that have a certificate of their own, as a JSON list. */}}
{{- define "cellsparse.roles" -}}
{{- $roles := list "orchestrator" "sparsifier" "trainer" }}
{{- if gt (int .Values.gateway.replicas) 0 }}{{ $roles = append $roles "gateway" }}{{ end }}
{{- if .Values.minio.enabled }}{{ $roles = append $roles "minio" }}{{ end }}
{{- $roles | toJson -}}
{{- end }}

{{/* Secret with certificate, key and authority of a role: dict "root" "role"; empty without TLS or without a role. */}}
{{- define "cellsparse.tlsSecret" -}}
{{- if .role }}
{{- $tls := .root.Values.tls }}
{{- if eq $tls.kind "secret" }}{{ index $tls.secrets .role | default $tls.secret }}
{{- else if has $tls.kind (list "certManager" "generated") }}{{ include "cellsparse.name" .root }}-tls-{{ .role }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether sparsifier and trainers check the certificates of their callers. With one certificate for all roles, whoever
     has it could pass for the orchestrator. */}}
{{- define "cellsparse.mutual" -}}
{{- $secrets := .Values.tls.secrets }}
{{- if has .Values.tls.kind (list "certManager" "generated") }}true
{{- else if and (eq .Values.tls.kind "secret") $secrets.orchestrator $secrets.sparsifier $secrets.trainer }}true
{{- end }}
{{- end }}

{{/* The orchestrator's name, as sparsifier and trainers find it in its certificate. */}}
{{- define "cellsparse.caller" -}}
{{ include "cellsparse.name" . }}-orchestrator.{{ .Release.Namespace }}.svc
{{- end }}

{{/* Standard variables of OpenTelemetry, as YAML; empty without a collector. */}}
{{- define "cellsparse.tracing" -}}
{{- with .Values.tracing.endpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ . | quote }}
OTEL_TRACES_SAMPLER: parentbased_traceidratio
OTEL_TRACES_SAMPLER_ARG: {{ $.Values.tracing.share | toString | quote }}
OTEL_RESOURCE_ATTRIBUTES: {{ printf "k8s.namespace.name=%s" $.Release.Namespace | quote }}
{{- end }}
{{- end }}

{{/* Port of the collector's address. */}}
{{- define "cellsparse.tracingPort" -}}
{{- $url := urlParse .Values.tracing.endpoint }}
{{- if regexMatch ":[0-9]+$" $url.host }}{{ regexFind "[0-9]+$" $url.host }}{{ else }}{{ ternary 443 80 (eq $url.scheme "https") }}{{ end }}
{{- end }}

{{/* Variables of TLS: dict "root" "role". Where callers show no certificate, network policies say who reaches which pod. */}}
{{- define "cellsparse.tlsEnvironment" -}}
{{- $checks := and (has .role (list "sparsifier" "trainer")) (include "cellsparse.mutual" .root) }}
{{- if include "cellsparse.tlsSecret" . }}
CELLSPARSE_TLS_CERT: /run/cellsparse/tls/tls.crt
CELLSPARSE_TLS_KEY: /run/cellsparse/tls/tls.key
{{- end }}
{{- if $checks }}
CELLSPARSE_TLS_CLIENT_CA: /run/cellsparse/tls/ca.crt
CELLSPARSE_TLS_CALLERS: {{ include "cellsparse.caller" .root }}
{{- else if .role }}
CELLSPARSE_INSECURE: "1"
{{- end }}
{{- end }}

{{/* Names in the certificate of a role, as a YAML list: dict "root" "role". Training pods are called by address and share
     the trainers' last one. */}}
{{- define "cellsparse.names" -}}
{{- $hosts := list }}
{{- if eq .role "trainer" }}{{ range .root.Values.trainers }}{{ $hosts = append $hosts (replace "_" "-" .backend) }}{{ end }}{{ end }}
{{- range append $hosts .role }}
{{- $service := printf "%s-%s" (include "cellsparse.name" $.root) . }}
- {{ $service }}
- {{ $service }}.{{ $.root.Release.Namespace }}.svc
{{- end }}
{{- if eq .role "orchestrator" }}
{{- range .root.Values.tls.names }}
- {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Probes of a gRPC server: dict "root" "port", and "service" for one that may live without answering calls: then it is
     ready as that service is. The kubelet's own probe speaks no TLS, but metrics are served without. */}}
{{- define "cellsparse.probes" -}}
{{- $ask := printf "grpc: {port: %v}" .port }}
{{- $ready := $ask }}
{{- if .service }}{{ $ready = printf "grpc: {port: %v, service: %s}" .port .service }}{{ end }}
{{- if ne .root.Values.tls.kind "none" }}
{{- $ask = "httpGet: {path: /health, port: metrics}" }}
{{- $ready = ternary "httpGet: {path: /answering, port: metrics}" $ask (not (not .service)) }}
{{- end -}}
startupProbe:
  {{ $ask }}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 600  # a database's new layout or a busy node may take minutes, and a start that is ended begins anew
readinessProbe:
  {{ $ready }}
  periodSeconds: 5
  timeoutSeconds: 5
livenessProbe:
  {{ $ask }}
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}
