variable "A" { default = "second" }
shared = "two"
target "default" {
  tags = ["b:2"]
  args = { X = "2", W = "${A}!" }
  cache-from = ["user/app:b", "user/app:a"]
  annotations = ["k2=v2"]
}
group "pair" { targets = ["child", "default"] }
