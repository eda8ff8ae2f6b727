use super::*;

fn run(name: &str, arguments: &[Value]) -> String {
    let function = find(name).unwrap_or_else(|| panic!("there is no {name}"));
    match call(function, arguments.to_vec(), &[]) {
        Ok(value) => crate::value::json::encode(&value),
        Err(problems) => format!("error: {problems}"),
    }
}

fn json(text: &str) -> Vec<Value> {
    match crate::value::json::decode(text).unwrap() {
        Value::Tuple(list) => list,
        _ => panic!("{text} is no list"),
    }
}

#[test]
fn functions_give_what_the_reference_gives() {
    for (name, arguments, want) in [
        ("absolute", "[-2]", "2"),
        ("basename", r#"["/a/b.txt"]"#, r#""b.txt""#),
        ("basename", r#"[""]"#, r#"".""#),
        ("bytesslice", r#"["hello", 1, 3]"#, r#""ell""#),
        ("chunklist", "[[1,2,3], 2]", "[[1,2],[3]]"),
        ("cidrhost", r#"["10.0.0.0/8", -2]"#, r#""10.255.255.254""#),
        ("cidrnetmask", r#"["172.16.0.0/12"]"#, r#""255.240.0.0""#),
        ("cidrsubnet", r#"["fd00::/48", 16, 2]"#, r#""fd00:0:0:2::/64""#),
        (
            "cidrsubnets",
            r#"["10.1.0.0/16", 4, 4, 8, 4]"#,
            r#"["10.1.0.0/20","10.1.16.0/20","10.1.32.0/24","10.1.48.0/20"]"#,
        ),
        ("coalesce", "[null, 1, 2]", "1"),
        ("compact", r#"[["a","","b"]]"#, r#"["a","b"]"#),
        ("contains", "[[1,2], 2]", "true"),
        ("csvdecode", r#"["a,b\n1,\"x,y\"\n"]"#, r#"[{"a":"1","b":"x,y"}]"#),
        ("distinct", "[[1,2,1]]", "[1,2]"),
        ("element", r#"[["a","b","c"], -1]"#, r#""c""#),
        ("flatten", "[[[1],[2,[3]]]]", "[1,2,3]"),
        ("floor", "[-1.5]", "-2"),
        (
            "format",
            r#"["%5s|%-5s|%05d|%.2f|%q|%x|%%", "a", "b", 42, 3.14159, "q", 255]"#,
            r#""    a|b    |00042|3.14|\"q\"|ff|%""#,
        ),
        (
            "format",
            r#"["%#x|%#X|%#o|%#b|%#06x|%#x", 255, 255, 8, 5, 255, -1]"#,
            r#""0xff|0XFF|010|0b101|0x00ff|-0x1""#,
        ),
        (
            "formatdate",
            r#"["EEEE, DD-MMM-YY hh:mm:ss 'o''clock' ZZZ", "2018-01-02T23:12:01+02:00"]"#,
            r#""Tuesday, 02-Jan-18 23:12:01 o'clock +0200""#,
        ),
        ("formatlist", r#"["%s-%s", ["a","b"], "x"]"#, r#"["a-x","b-x"]"#),
        ("formattimestamp", r#"["YYYY", 1690328596]"#, r#""2023""#),
        ("hasindex", "[[1], 1]", "false"),
        ("indent", r#"[2, "a\nb"]"#, r#""a\n  b""#),
        ("int", "[-1.9]", "-1"),
        ("keys", r#"[{"b":1,"a":2}]"#, r#"["a","b"]"#),
        ("lookup", r#"[{"a":1}, "b", "none"]"#, r#""none""#),
        ("merge", r#"[{"a":1}, null, {"a":2,"b":3}]"#, r#"{"a":2,"b":3}"#),
        ("parseint", r#"["-ff", 16]"#, "-255"),
        ("parseint", r#"["aA", 62]"#, "656"),
        ("range", "[1, 7, 2]", "[1,3,5]"),
        ("range", "[-3]", "[0,-1,-2]"),
        ("regex", r#"["(\\d+)-(\\d+)", "x1-22y"]"#, r#"["1","22"]"#),
        ("regex", r#"["(?P<y>\\d{4})", "in 2024"]"#, r#"{"y":"2024"}"#),
        ("regexall", r#"["[a-z]+", "ab 1 cd"]"#, r#"["ab","cd"]"#),
        ("regex_replace", r#"["a-b", "(\\w)-(\\w)", "$2-$1"]"#, r#""b-a""#),
        ("reverselist", "[[1,2]]", "[2,1]"),
        ("sanitize", r#"["a.b/c:d"]"#, r#""a_b_c_d""#),
        ("sethaselement", r#"[["a"], "a"]"#, "true"),
        ("setintersection", "[[1,2,3],[2,3],[3]]", "[3]"),
        ("setproduct", r#"[["a","b"],[1]]"#, r#"[["a",1],["b",1]]"#),
        ("setsubtract", "[[1,2],[2]]", "[1]"),
        ("setsymmetricdifference", "[[1,2],[2,3]]", "[1,3]"),
        ("slice", "[[1,2,3], 1, 2]", "[2]"),
        ("strlen", r#"["e\u0301a"]"#, "2"),
        ("substr", r#"["hello", -3, 2]"#, r#""ll""#),
        ("substr", r#"["hello", 1, -1]"#, r#""ello""#),
        ("timeadd", r#"["2024-02-28T12:00:00Z", "-36h"]"#, r#""2024-02-27T00:00:00Z""#),
        ("title", r#"["hello big-world"]"#, r#""Hello Big-World""#),
        ("trim", r#"["??a?", "?"]"#, r#""a""#),
        ("urlencode", r#"["a b&c=~"]"#, r#""a+b%26c%3D~""#),
        ("uuidv5", r#"["dns", "example.com"]"#, r#""cfbff0d1-9375-5685-968c-48ce8b15ae17""#),
        ("upper", r#"["straße"]"#, r#""STRAßE""#),
        ("zipmap", r#"[["a","b"],[1,2]]"#, r#"{"a":1,"b":2}"#),
    ] {
        assert_eq!(run(name, &json(arguments)), want, "{name}{arguments}");
    }
}

#[test]
fn constraints_of_versions_hold_as_in_go() {
    for (version, constraint, want) in [
        ("1.2.3", ">= 1.0", true),
        ("v1.2", "1.2.0", true),
        ("1.2.3", "~1.2", true),
        ("1.3.0", "~1.2", false),
        ("1.9.9", "^1.2.3", true),
        ("2.0.0", "^1.2.3", false),
        ("0.3.0", "^0.2.3", false),
        ("1.2.9", "1.2.x", true),
        ("1.5.0", ">1.0, <1.5", false),
        ("1.5.0", "<1 || >=1.5", true),
        ("1.4.0", "1.2 - 1.4", true),
        ("1.2.3-beta", ">1.0", false),
        ("3.0.0", "*", true),
    ] {
        let arguments = [Value::string(version), Value::string(constraint)];
        assert_eq!(run("semvercmp", &arguments), want.to_string(), "{version} {constraint}");
    }
    assert!(run("semvercmp", &[Value::string("x"), Value::string("1")]).contains("invalid semantic version"));
}

#[test]
fn every_function_of_the_reference_is_there() {
    let names = "absolute add and base64decode base64encode basename bcrypt byteslen bytesslice can ceil chomp \
        chunklist cidrhost cidrnetmask cidrsubnet cidrsubnets coalesce coalescelist compact concat contains \
        convert csvdecode dirname distinct divide element equal flatten floor format formatdate formatlist \
        formattimestamp greaterthan greaterthanorequalto hasindex homedir indent index indexof int join \
        jsondecode jsonencode keys length lessthan lessthanorequalto log lookup lower max md5 merge min modulo \
        multiply negate not notequal or parseint pow range regex regex_replace regexall replace reverse \
        reverselist rsadecrypt sanitize semvercmp sethaselement setintersection setproduct setsubtract \
        setsymmetricdifference setunion sha1 sha256 sha512 signum slice sort split strlen substr subtract \
        timeadd timestamp title trim trimprefix trimspace trimsuffix try unixtimestampparse upper urlencode \
        uuidv4 uuidv5 values zipmap";
    let missing: Vec<&str> = names.split_whitespace().filter(|name| !exists(name)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
