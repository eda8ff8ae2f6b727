variable "VERSION" { default = "1.2" }
variable "REG" {
  type = string
  default = "reg.example"
  description = "where images go"
  validation {
    condition = REG != ""
    error_message = "REG must be set"
  }
}
variable "FLAGS" { type = list(string) }
variable "NUMS" {
  type = list(number)
  default = [1, 2, 3.50]
}
variable "OBJ" {
  type = object({ a = string, b = number })
  default = { a = "x", b = "3" }
}
variable "ON" { default = true }
variable "NIL" { default = null }
variable "N" { default = 4 }
local_name = "l-${VERSION}"
function "tag" {
  params = [name]
  variadic_params = rest
  result = ["${REG}/${name}:${VERSION}", join("-", concat([name], rest))]
}
function "double" {
  params = [n]
  result = multiply(n, 2)
}
group "default" { targets = ["app", "all"] }
group "all" {
  description = "everything"
  targets = ["web", "tool"]
}
target "_base" {
  context = "./src"
  args = { GO = "1.22", NULLED = NIL, D = double(N), COND = ON ? "yes" : "no" }
  labels = { "org.x" = "<a&b>", "tpl" = "$${HOME}" }
  platforms = ["linux/amd64", "linux/arm64"]
  annotations = ["index:a=b"]
}
target "app" {
  inherits = ["_base"]
  description = "the app"
  tags = tag("app", "x", "y")
  output = ["type=image,push=true", { type = "local", dest = "out" }]
  cache-from = ["user/app:cache", { type = "registry", ref = "r/c" }, "a,b"]
  cache-to = ["type=inline"]
  secret = ["id=s,env=HOME", { id = "t", env = "TOK" }]
  attest = ["type=provenance,mode=max", { type = "sbom", disabled = "true" }]
  contexts = { base = "target:base", img = "docker-image://busybox" }
  shm-size = "128m"
  ulimits = ["nofile=1024:1024"]
  network = "host"
  extra-hosts = { h = "1.2.3.4" }
  no-cache-filter = ["x"]
  pull = true
  call = "check"
  resources = { memory = "2g", cpu-shares = 512 }
  dockerfile-inline = <<EOT
FROM base
RUN echo $${X} ${local_name}
EOT
}
target "base" { dockerfile = "Dockerfile.base" }
target "web" {
  name = "web-${replace(v, ".", "-")}-${os}"
  matrix = { v = ["1.0", "2.0"], os = ["deb"] }
  inherits = ["_base"]
  tags = [for t in tag("web") : "${t}-${v}"]
  args = {
    V = v
    E = "%{ if v == "1.0" }one%{ else }other%{ endif }"
    L = length(target.app.tags)
    F = format("%05.2f|%s|%d|%v", 3.14159, "s", N, NUMS)
    H = <<-EOT
      indented ${v}
        more
    EOT
  }
  target = target.app.dockerfile
}
target "tool" {
  args = {
    a = upper("x"), b = sha256("abc"), c = jsonencode({a=[1,"b",null,true]}), d = regex_replace("a1b2","[0-9]","#")
    e = semvercmp("1.2.3", ">= 1.0"), f = cidrsubnet("10.0.0.0/8", 8, 2), g = formatdate("YYYY-MM-DD'T'hh:mm:ssZ", "2024-02-03T04:05:06Z")
    h = substr("hello", 1, 3), i = "${1 + 2 * 3}", j = 10 / 4, l = 0.1 + 0.2, m = 7 % 3, n = join(",", sort(["c","a","b"]))
    o = title("hello world"), p = base64encode("hi"), q = urlencode("a b&c"), r = lookup({x=1}, "y", "def"), s = join(",", keys({b=1,a=2}))
    t = try(nothing, "fallback"), u = can(1 + "x"), v = md5("a"), w = strlen("héllo"), x = parseint("ff", 16), y = pow(2, 10), z = signum(-3)
    aa = join(",", [for k, v in {b=2,a=1} : "${k}=${v}" if v > 1]), bb = indent(2, "a\nb"), cc = chomp("x\n\n"), dd = timeadd("2024-01-01T00:00:00Z", "36h")
    ee = sanitize("a.b/c"), ff = basename("/a/b.txt"), gg = dirname("/a/b.txt"), hh = unixtimestampparse(1690328596).rfc3339, ii = formattimestamp("X", "2023-07-25T23:43:16Z")
    jj = max(1, 5, 3), kk = ceil(1.2), ll = log(8, 2), mm = join(",", range(3)), nn = uuidv5("dns", "example.com"), oo = csvdecode("a,b\n1,2")[0].b
    pp = join("|", flatten([["a"],["b",["c"]]])), qq = title("x-y z'q_r"), rr = split(",", "a,b")[1], ss = element(["a","b"], 3), tt = equal(1, "1"), uu = 1 == "1"
    vv = jsonencode(setproduct(["a","b"],["c"])), ww = jsonencode(merge({a=1},{b=2})), xx = jsonencode(zipmap(["a"],[1])), yy = jsonencode(chunklist([1,2,3],2))
  }
  entitlements = ["security.insecure"]
}
