variable "A" { default = "first" }
shared = "one"
target "default" {
  tags   = ["a:1"]
  args   = { X = "1", Y = A }
  labels = { l = shared }
  cache-from = ["user/app:a"]
  annotations = ["k=v"]
}
target "child" {
  inherits = ["default", "other"]
  args     = { Z = target.default.args.X }
}
target "other" {
  args = { X = "9" }
  secret = ["id=a,env=HOME"]
}
