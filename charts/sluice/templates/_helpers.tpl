{{- define "sluice.fullname" -}}
{{- .Values.fullnameOverride | default "sluice" -}}
{{- end }}

{{- define "sluice.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "sluice.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name: name an existing ServiceAccount, or set serviceAccount.create to true" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* What the API server calls the controller's account. */}}
{{- define "sluice.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "sluice.serviceAccountName" . }}
{{- end }}

{{- define "sluice.selectorLabels" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "sluice.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: sluice
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: sluice
{{- end }}

{{- define "sluice.image" -}}
{{- $registry := .Values.imageRegistry | default .Values.image.registry -}}
{{- $name := .Values.image.repository -}}
{{- if $registry -}}{{- $name = printf "%s/%s" (trimSuffix "/" $registry) $name -}}{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end }}

{{/* How templates are held: onChange or always. */}}
{{- define "sluice.hold" -}}
{{- $new := semverCompare ">=1.36.0-0" .Capabilities.KubeVersion.Version -}}
{{- if eq .Values.admission.hold "auto" -}}
{{- ternary "onChange" "always" $new -}}
{{- else -}}
{{- if and (eq .Values.admission.hold "onChange") (not $new) -}}
{{- fail (printf "admission.hold: onChange needs Kubernetes 1.36 (MutatingAdmissionPolicy v1), this is %s. Set it to auto or always, or pass --kube-version to helm template." .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- .Values.admission.hold -}}
{{- end -}}
{{- end }}

{{/* Settings of one provider. Secrets are named by key; their values never are in here. */}}
{{- define "sluice.provider" -}}
{{- $name := .name -}}
{{- $v := .provider -}}
{{- if not $v.url -}}
{{- range $k := list "peers" "caKey" "bearerTokenKey" "basicUserKey" "basicPasswordKey" "headers" -}}
{{- if get $v $k -}}{{- fail (printf "%s.%s is set but %s.url is empty: give the address, or remove %s" $name $k $name $k) -}}{{- end -}}
{{- end -}}
{{- else -}}
{{- if ne (empty $v.basicUserKey) (empty $v.basicPasswordKey) -}}
{{- fail (printf "%s: basic authentication needs both basicUserKey and basicPasswordKey" $name) -}}
{{- end -}}
{{- if and $v.bearerTokenKey $v.basicUserKey -}}
{{- fail (printf "%s: bearerTokenKey and basicUserKey exclude each other: a request has one Authorization header" $name) -}}
{{- end -}}
{{- $out := dict "url" $v.url -}}
{{- range $k := list "peers" "caKey" "bearerTokenKey" "basicUserKey" "basicPasswordKey" "headers" -}}
{{- if get $v $k -}}{{- $_ := set $out $k (get $v $k) -}}{{- end -}}
{{- end -}}
{{- toYaml $out -}}
{{- end -}}
{{- end }}

{{/* config.yaml. Tables are written as JSON, which is YAML: toYaml would turn 1000000 into 1e+06. */}}
{{- define "sluice.config" -}}
hold: {{ include "sluice.hold" . }}
evaluationIntervalSeconds: {{ int64 .Values.evaluationIntervalSeconds }}
declarationGraceSeconds: {{ int64 .Values.declarationGraceSeconds }}
watchNamespaces: {{ toJson (.Values.watchNamespaces | default list) }}
{{- with include "sluice.provider" (dict "name" "prometheus" "provider" .Values.prometheus) }}
prometheus:
  {{- . | nindent 2 }}
{{- end }}
{{- with include "sluice.provider" (dict "name" "alertmanager" "provider" .Values.alertmanager) }}
alertmanager:
  {{- . | nindent 2 }}
{{- end }}
classes: {{ toJson (.Values.classes | default list) }}
defaultPolicy: {{ .Values.defaultPolicy }}
defaultGuards: {{ toJson (.Values.defaultGuards | default list) }}
{{- end }}

{{/* What the Deployment's pods and the hook's pod share; `args` are the container's. */}}
{{- define "sluice.podSpec" -}}
{{- $root := .root -}}
serviceAccountName: {{ include "sluice.serviceAccountName" $root | quote }}
automountServiceAccountToken: true
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  {{- toYaml $root.Values.podSecurityContext | nindent 2 }}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "sluice.fullname" $root }}-config
containers:
  - name: controller
    image: {{ include "sluice.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args:
      {{- toYaml .args | nindent 6 }}
    env:
      - name: POD_NAME
        valueFrom:
          fieldRef:
            fieldPath: metadata.name
      - name: POD_NAMESPACE
        valueFrom:
          fieldRef:
            fieldPath: metadata.namespace
      - name: POD_IP
        valueFrom:
          fieldRef:
            fieldPath: status.podIP
      {{- with $root.Values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with .ports }}
    ports:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .probes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    resources:
      {{- toYaml $root.Values.resources | nindent 6 }}
    securityContext:
      {{- toYaml $root.Values.securityContext | nindent 6 }}
    volumeMounts:
      - name: config
        mountPath: /run/sluice/config
        readOnly: true
{{- end }}
