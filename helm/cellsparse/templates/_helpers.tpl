{{/* First part of the names of all objects. */}}
{{- define "cellsparse.name" -}}
{{- $name := ternary .Release.Name (printf "%s-cellsparse" .Release.Name) (contains "cellsparse" .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels that select one component: dict "root" "component". */}}
{{- define "cellsparse.selector" -}}
app.kubernetes.io/name: {{ .component }}
app.kubernetes.io/instance: {{ include "cellsparse.name" .root }}
{{- end }}

{{/* Labels of all pods of the release, those of training Jobs included. */}}
{{- define "cellsparse.everything" -}}
app.kubernetes.io/part-of: cellsparse
app.kubernetes.io/instance: {{ include "cellsparse.name" . }}
{{- end }}

{{/* Labels of the trainers' pods, warm replicas and training Jobs. */}}
{{- define "cellsparse.trainerPods" -}}
app.kubernetes.io/component: trainer
app.kubernetes.io/instance: {{ include "cellsparse.name" . }}
{{- end }}

{{/* All labels of an object: dict "root" "component". */}}
{{- define "cellsparse.labels" -}}
{{ include "cellsparse.selector" . }}
app.kubernetes.io/component: {{ ternary "trainer" .component (hasPrefix "warm-" .component) }}
app.kubernetes.io/part-of: cellsparse
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Image of one of our own services: dict "root" "image" "name". */}}
{{- define "cellsparse.image" -}}
{{- $images := .root.Values.images -}}
{{- $image := .image | default (printf "%s/cellsparse-%s:%s" $images.registry .name ($images.tag | default .root.Chart.AppVersion)) -}}
{{- include "cellsparse.mirrored" (dict "root" .root "image" $image) -}}
{{- end }}

{{/* An image as `images.mirror` has it: the mirror in the place of its registry. dict "root" "image" */}}
{{- define "cellsparse.mirrored" -}}
{{- $first := splitList "/" .image | first -}}
{{- if not .root.Values.images.mirror }}{{ .image }}
{{- else if and (contains "/" .image) (or (contains "." $first) (contains ":" $first) (eq $first "localhost")) -}}
{{ .root.Values.images.mirror }}/{{ trimPrefix (printf "%s/" $first) .image }}
{{- else }}{{ .root.Values.images.mirror }}/{{ .image }}
{{- end }}
{{- end }}

{{/* Port of every trainer; they are pods of their own, so that one port does for all backends. */}}
{{- define "cellsparse.trainerPort" -}}50052{{- end }}

{{/* The trainers as a JSON list, each with all keys of trainerDefaults, and with its backend's name in names of objects,
which hold no underscores, as `host`. */}}
{{- define "cellsparse.trainers" -}}
{{- $trainers := list -}}
{{- $backends := list -}}
{{- range .Values.trainers }}
{{- if has .backend $backends }}{{ fail (printf "trainers holds %s twice" .backend) }}{{ end -}}
{{- $backends = append $backends .backend -}}
{{- $trainers = append $trainers (mergeOverwrite (deepCopy $.Values.trainerDefaults) . (dict "host" (replace "_" "-" .backend))) }}{{ end -}}
{{- $trainers | toJson -}}
{{- end }}

{{/* `autoscaling` as JSON; charts of release 0.1.0 had a part of it as `keda`. */}}
{{- define "cellsparse.scaling" -}}
{{- $own := deepCopy .Values.autoscaling -}}
{{- if (.Values.keda).enabled }}{{ $own = mergeOverwrite $own (omit .Values.keda "enabled") (dict "kind" "keda") }}{{ end -}}
{{- $own | toJson -}}
{{- end }}

{{/* What sets the number of warm replicas: none, keda or hpa. */}}
{{- define "cellsparse.autoscaling" -}}
{{- (include "cellsparse.scaling" . | fromJson).kind -}}
{{- end }}

{{/* Whether a trainer may sleep, or empty: dict "root", "trainer". */}}
{{- define "cellsparse.sleeps" -}}
{{- if and (eq (include "cellsparse.autoscaling" .root) "keda") (gt (int .trainer.warmReplicas) 0) (eq (int .trainer.minReplicas) 0) }}true{{ end -}}
{{- end }}

{{/* Fields that all pods share: dict "root", "user" (id), and "place" with nodeSelector and tolerations, if any. */}}
{{- define "cellsparse.pod" -}}
enableServiceLinks: false
# Pods are of the level "restricted".
securityContext:
  runAsNonRoot: true
  {{- if not .root.Values.assignedUsers }}
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .place }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* User of our own images. */}}
{{- define "cellsparse.user" -}}10001{{- end }}

{{- define "cellsparse.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Annotation that keeps an object, such as a volume or its password, when the release is uninstalled. */}}
{{- define "cellsparse.keep" -}}
{{- if .Values.data.keep }}annotations: {helm.sh/resource-policy: keep}{{ end -}}
{{- end }}

{{/* A volume claim's spec: dict "storage" "storageClass". */}}
{{- define "cellsparse.claim" -}}
accessModes: [ReadWriteOnce]
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources: {requests: {storage: {{ .storage }}}}
{{- end }}
